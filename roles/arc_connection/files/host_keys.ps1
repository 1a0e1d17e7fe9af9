# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# By which keys does ssh know this Windows machine? Run as SYSTEM by Azure's run command; changes nothing and writes one line of JSON.

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$folder = Join-Path -Path $env:ProgramData -ChildPath 'ssh'
$keys = @()
if (Test-Path -LiteralPath $folder) {
    $keys = @(Get-ChildItem -LiteralPath $folder -Filter 'ssh_host_*_key.pub' | Sort-Object -Property Name | ForEach-Object -Process {
            ([System.IO.File]::ReadAllText($_.FullName).Trim() -split '\s+' | Select-Object -First 2) -join ' '
        })
}
$problem = $null
if ($keys.Count -eq 0) {
    $problem = 'There are no host keys of an OpenSSH server.'
}
ConvertTo-Json -InputObject @{ changed = $false; host_keys = $keys; problem = $problem } -Compress
