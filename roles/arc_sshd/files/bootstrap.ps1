# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What is the state of OpenSSH on this Windows machine, and how does it change without locking anybody out?
#
# Without -Action, as Azure's run command runs it: OpenSSH is installed and started, the key is let in, and the last line of the output is
# one JSON object, as of bootstrap.sh. With -Action, as the role runs it through ansible.windows.win_powershell, which brings $Ansible: one
# step each. It stays on the machine only while a change is not confirmed: then a scheduled task runs it with -Action revert, which puts the
# configuration back that was there before the first change.
# For Windows PowerShell 5.1. Accounts are named by their SIDs, because their names are translated.
[CmdletBinding(SupportsShouldProcess, PositionalBinding=$false)]
param (
    [ValidateSet('bootstrap', 'look', 'install', 'protect', 'firewall', 'change', 'confirm', 'revert')]
    [string]
    $Action = 'bootstrap',

    # bootstrap: whom to let in (empty: all administrators), and with which keys, one in each line. How the run command passes blanks is not
    # documented, so that each value may also be written as base64: and its UTF-8 in base 64.
    [string]
    $ARCFLEET_USER = '',

    [string]
    $ARCFLEET_KEY = '',

    # install: where the capability's files are; empty for Windows Update.
    [string]
    $Source = '',

    # change: the whole new sshd_config, and the part of it that is ours.
    [string]
    $Text = '',

    [string]
    $Block = '',

    # change: the ports on which sshd has to listen afterwards; seconds until the way back; the text of this script.
    [int[]]
    $Ports = @(),

    [int]
    $WayBack = 600,

    [string]
    $Program = '',

    # What bootstrap.sh takes and this does not need.
    [Parameter(ValueFromRemainingArguments)]
    [string[]]
    $Rest = @()
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

$LocalSystem = 'S-1-5-18'
$Administrators = 'S-1-5-32-544'
$Capability = 'OpenSSH.Server~~~~0.0.1.0'
$FirewallRule = 'OpenSSH-Server-In-TCP'
$TaskName = 'arcfleet-sshd-way-back'
$Folder = Join-Path -Path $env:ProgramData -ChildPath 'ssh'
$Config = Join-Path -Path $Folder -ChildPath 'sshd_config'
$Logs = Join-Path -Path $Folder -ChildPath 'logs'
$Keys = Join-Path -Path $Folder -ChildPath 'administrators_authorized_keys'
# Below a folder in which only administrators write: nobody else can have put a program there for the task to run.
$State = Join-Path -Path $Folder -ChildPath 'arcfleet'
$Saved = Join-Path -Path $State -ChildPath 'sshd_config.before'
$Candidate = Join-Path -Path $State -ChildPath 'sshd_config.new'
$Sample = Join-Path -Path $State -ChildPath 'sshd_config.block'
$Script = Join-Path -Path $State -ChildPath 'way_back.ps1'

# Read and execute only for others, as the installer of OpenSSH sets it. OpenSSH 9.4 to 9.8 does not start when others may write.
$FolderAccess = 'O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;AU)'
$LogsAccess = 'O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)'
$KeysAccess = 'O:BAD:PAI(A;;FA;;;SY)(A;;FA;;;BA)'
# Write data, append, write attributes (two kinds), delete (two kinds), change permissions, take ownership, generic write and generic all.
$WriteMask = 0x500D0156

function Get-Sshd {
    # The service, and where its program is; nothing when there is no service.
    $service = Get-CimInstance -ClassName Win32_Service -Filter "Name='sshd'"
    if ($service -and $service.PathName -match '^\s*"?([^"]+?\.exe)') {
        @{
            Path = [Environment]::ExpandEnvironmentVariables($Matches[1])
            Running = $service.State -eq 'Running'
            StartMode = [string] $service.StartMode
        }
    }
}

function Invoke-Sshd {
    # What sshd.exe says to these arguments, and its exit code. What it writes to stderr is not an error of this script.
    param ([string] $Path, [string[]] $ArgumentList)
    $ErrorActionPreference = 'Continue'
    $lines = @(& $Path $ArgumentList 2>&1 | ForEach-Object -Process { [string] $_ })
    @{ Lines = $lines; Code = $LASTEXITCODE }
}

function Get-Listener {
    # The addresses and ports on which sshd listens.
    $processes = @(Get-Process -Name sshd -ErrorAction SilentlyContinue | ForEach-Object -Process { $_.Id })
    if ($processes.Count) {
        Get-NetTCPConnection -State Listen -ErrorAction SilentlyContinue |
            Where-Object -FilterScript { $processes -contains $_.OwningProcess } |
            ForEach-Object -Process { @{ address = [string] $_.LocalAddress; port = [int] $_.LocalPort } }
    }
}

function Read-Text {
    # The text of a file, in whatever encoding its first bytes tell, or nothing where there is no file.
    param ([string] $Path)
    if (Test-Path -LiteralPath $Path -PathType Leaf) {
        [System.IO.File]::ReadAllText($Path)
    }
}

function Write-Text {
    # OpenSSH wants neither a byte order mark nor UTF-16. The bytes are on the disk when this returns.
    param ([string] $Path, [string] $Value)
    $bytes = (New-Object -TypeName System.Text.UTF8Encoding -ArgumentList $false).GetBytes($Value)
    $options = [System.IO.FileOptions]::WriteThrough
    $stream = New-Object -TypeName System.IO.FileStream -ArgumentList $Path, 'Create', 'Write', 'None', 4096, $options
    try {
        $stream.Write($bytes, 0, $bytes.Length)
    }
    finally {
        $stream.Dispose()
    }
}

function Test-Marked {
    # Whether a file begins with the mark of an encoding that sshd does not read.
    param ([string] $Path)
    if (Test-Path -LiteralPath $Path -PathType Leaf) {
        $bytes = [System.IO.File]::ReadAllBytes($Path)
        $first = @($bytes | Select-Object -First 2)
        $first.Count -eq 2 -and ((0xFF, 0xFE, 0xEF) -contains $first[0]) -and ((0xFF, 0xFE, 0xBB) -contains $first[1])
    }
    else {
        $false
    }
}

function Test-Exposed {
    # Whether somebody else than the system and the administrators owns or may write this, or, with -Strict, may do anything with it.
    param ([string] $Path, [switch] $Strict)
    $acl = Get-Acl -LiteralPath $Path
    $sid = [System.Security.Principal.SecurityIdentifier]
    $trusted = @($LocalSystem, $Administrators)
    if ($trusted -notcontains $acl.GetOwner($sid).Value) {
        return $true
    }
    $rules = @($acl.GetAccessRules($true, $true, $sid))
    $others = @($rules | Where-Object -FilterScript {
            $trusted -notcontains $_.IdentityReference.Value -and $_.AccessControlType -eq 'Allow' -and
            ($Strict -or (([int] $_.FileSystemRights) -band $WriteMask))
        })
    $lacking = @($trusted | Where-Object -FilterScript { @($rules | ForEach-Object -Process { $_.IdentityReference.Value }) -notcontains $_ })
    [bool] ($others.Count -or $lacking.Count -or ($Strict -and -not $acl.AreAccessRulesProtected))
}

function Set-Access {
    param ([string] $Path, [string] $Sddl)
    $acl = Get-Acl -LiteralPath $Path
    $acl.SetSecurityDescriptorSddlForm($Sddl, 'Owner, Access')
    Set-Acl -LiteralPath $Path -AclObject $acl
}

function Get-Unprotected {
    # What has the wrong permissions, and the right ones for it.
    $found = @()
    foreach ($item in @(
            @{ Path = $Folder; Sddl = $FolderAccess; Strict = $false },
            @{ Path = $Logs; Sddl = $LogsAccess; Strict = $false },
            @{ Path = $Keys; Sddl = $KeysAccess; Strict = $true })) {
        if ((Test-Path -LiteralPath $item.Path) -and (Test-Exposed -Path $item.Path -Strict:$item.Strict)) {
            $found += $item
        }
    }
    $found
}

function Get-Firewall {
    # Whether the capability's rule lets others in; nothing where there is no such rule.
    $rule = Get-NetFirewallRule -Name $FirewallRule -ErrorAction SilentlyContinue
    if ($rule) {
        [string] $rule.Enabled -eq 'True'
    }
}

function Get-HostKey {
    # The public host keys, without their comments.
    if (Test-Path -LiteralPath $Folder) {
        @(Get-ChildItem -LiteralPath $Folder -Filter 'ssh_host_*_key.pub' | Sort-Object -Property Name | ForEach-Object -Process {
                ((Read-Text -Path $_.FullName).Trim() -split '\s+' | Select-Object -First 2) -join ' '
            })
    }
}

function Get-State {
    $sshd = Get-Sshd
    $known = @{
        installed = [bool] $sshd
        running = $false
        start_mode = ''
        version = ''
        path = ''
        config = Read-Text -Path $Config
        config_problem = $null
        authorized_keys = Read-Text -Path $Keys
        keys_marked = Test-Marked -Path $Keys
        keys_path = $Keys
        effective = @()
        listeners = @()
        host_keys = @(Get-HostKey)
        exposed = @(Get-Unprotected | ForEach-Object -Process { $_.Path })
        firewall = Get-Firewall
        pending = Test-Path -LiteralPath $Saved -PathType Leaf
        through_loopback = [string] $env:SSH_CONNECTION -match '^(127\.|::1 )'
    }
    if ($sshd) {
        $known.running = $sshd.Running
        $known.start_mode = $sshd.StartMode
        $known.path = $sshd.Path
        $known.version = [string] (Get-Item -LiteralPath $sshd.Path).VersionInfo.FileVersion
        $known.listeners = @(Get-Listener)
        if ($null -ne $known.config) {
            $effective = Invoke-Sshd -Path $sshd.Path -ArgumentList '-T'
            if ($effective.Code) {
                $known.config_problem = $effective.Lines -join ' '
            }
            else {
                $known.effective = $effective.Lines
            }
        }
    }
    $known
}

function Restart-Sshd {
    # Reads the configuration anew. Connections are processes of their own and go on.
    Restart-Service -Name sshd -Force
    (Get-Service -Name sshd).WaitForStatus('Running', [TimeSpan]::FromSeconds(30))
}

function Wait-Listener {
    # Which of the ports sshd does not listen on, after some patience.
    param ([int[]] $Wanted)
    $missing = $Wanted
    foreach ($try in 1..20) {
        $open = @(Get-Listener | ForEach-Object -Process { $_.port })
        $missing = @($Wanted | Where-Object -FilterScript { $open -notcontains $_ })
        if (-not $missing.Count) {
            break
        }
        Start-Sleep -Milliseconds 500
    }
    $missing
}

function Get-Effective {
    # The values that sshd makes of a configuration, for some options, as one text.
    param ([string] $Path, [string] $File, [string[]] $Options)
    $answer = Invoke-Sshd -Path $Path -ArgumentList '-T', '-f', $File
    if ($answer.Code) {
        throw "sshd refuses the new configuration: $($answer.Lines -join ' ') Nothing was changed."
    }
    @($answer.Lines | Where-Object -FilterScript { $Options -contains ($_ -split '\s+')[0] } | Sort-Object) -join "`n"
}

function Assert-Candidate {
    # The candidate has to be valid, and what is asked for has to be what counts.
    param ([string] $Path)
    $answer = Invoke-Sshd -Path $Path -ArgumentList '-t', '-f', $Candidate
    if ($answer.Code) {
        throw "sshd refuses the new configuration: $($answer.Lines -join ' ') Nothing was changed."
    }
    # The address lines show the ports as well, which may come from elsewhere.
    $options = @($Block -split "`r?`n" | Where-Object -FilterScript { $_ -match '^\s*[A-Za-z]' } |
            ForEach-Object -Process { ($_.Trim() -split '[\s=]+')[0].ToLowerInvariant() } |
            Where-Object -FilterScript { $_ -ne 'listenaddress' })
    if ($options.Count) {
        $wanted = Get-Effective -Path $Path -File $Sample -Options $options
        $effective = Get-Effective -Path $Path -File $Candidate -Options $options
        if ($wanted -ne $effective) {
            throw "Other lines of $Config stand against the wanted settings. Wanted: $wanted. In effect would be: $effective. Nothing was changed."
        }
    }
}

function Register-WayBack {
    $powershell = Join-Path -Path $env:SystemRoot -ChildPath 'System32\WindowsPowerShell\v1.0\powershell.exe'
    $task = @{
        TaskName = $TaskName
        Description = 'Puts the configuration of sshd back unless arcfleet.ssh confirms that it can still be reached.'
        Action = New-ScheduledTaskAction -Execute $powershell -Argument ('-NoProfile -NonInteractive -ExecutionPolicy Bypass -File "{0}" -Action revert' -f $Script)
        Trigger = New-ScheduledTaskTrigger -Once -At (Get-Date).AddSeconds($WayBack)
        # A machine that was off at that time does it when it starts.
        Settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries
        Principal = New-ScheduledTaskPrincipal -UserId $LocalSystem -LogonType ServiceAccount -RunLevel Highest
        Force = $true
    }
    $null = Register-ScheduledTask @task
}

function Clear-State {
    # Without the saved file there is nothing to go back to: it is removed first, and that decides.
    if (Test-Path -LiteralPath $Saved) {
        Remove-Item -LiteralPath $Saved -Force
    }
    Unregister-ScheduledTask -TaskName $TaskName -Confirm:$false -ErrorAction SilentlyContinue
    if (Test-Path -LiteralPath $State) {
        Remove-Item -LiteralPath $State -Recurse -Force
    }
}

function Restore-Config {
    # Puts the saved configuration back, byte for byte; says whether there was one.
    if (-not (Test-Path -LiteralPath $Saved -PathType Leaf)) {
        Clear-State
        return $false
    }
    Copy-Item -LiteralPath $Saved -Destination $Candidate -Force
    [System.IO.File]::Replace($Candidate, $Config, [NullString]::Value)
    Restart-Sshd
    Clear-State
    $true
}

function Save-Config {
    # The configuration before the first change that is not confirmed stays the one to go back to.
    if (-not (Test-Path -LiteralPath $Saved)) {
        Copy-Item -LiteralPath $Config -Destination "$Saved.part" -Force
        Move-Item -LiteralPath "$Saved.part" -Destination $Saved
    }
}

function Update-Config {
    $sshd = Get-Sshd
    $before = Read-Text -Path $Config
    if (-not $sshd -or $null -eq $before) {
        throw "There is no $Config. Start the service sshd once, so that it writes one, and run this again."
    }
    $now = Invoke-Sshd -Path $sshd.Path -ArgumentList '-t'
    if ($now.Code -and -not (Test-Path -LiteralPath $Saved)) {
        throw "$Config is broken already: $($now.Lines -join ' ') Nothing was changed. Mend it and run this again."
    }
    if (Test-Exposed -Path $Folder) {
        throw "Others than administrators may write in $Folder. Nothing was changed. Let this role protect it, or do it, and run this again."
    }
    $pending = Test-Path -LiteralPath $Saved
    try {
        if (-not (Test-Path -LiteralPath $State)) {
            $null = New-Item -Path $State -ItemType Directory
        }
        Write-Text -Path $Candidate -Value $Text
        Write-Text -Path $Sample -Value $Block
        Assert-Candidate -Path $sshd.Path
        Save-Config
        Write-Text -Path $Script -Value $Program
        Register-WayBack
    }
    catch {
        if (-not $pending) {
            Clear-State
        }
        throw
    }
    try {
        [System.IO.File]::Replace($Candidate, $Config, [NullString]::Value)
        Restart-Sshd
        $missing = @(Wait-Listener -Wanted $Ports)
        if ($missing.Count) {
            throw "sshd does not listen on port $($missing -join ', ')."
        }
    }
    catch {
        $reason = $_.Exception.Message
        $null = Restore-Config
        throw "sshd did not come up with the new configuration, so the one before is back and in use. The reason: $reason"
    }
}

function Install-Server {
    # What Windows calls a capability comes from Windows Update or from a folder with its files.
    $options = @{ Online = $true; Name = $Capability }
    if ($Source) {
        $options.Source = $Source
        $options.LimitAccess = $true
    }
    try {
        [bool] (Add-WindowsCapability @options).RestartNeeded
    }
    catch {
        throw "Windows could not install $Capability`: $($_.Exception.Message) Machines that get updates from a server of their own often " +
        "cannot get capabilities from it: name a folder that has them (arc_sshd_windows_source), or use the extension WindowsOpenSSH."
    }
}

function ConvertFrom-Parameter {
    # The value of a parameter of the run command.
    param ([string] $Value)
    if ($Value.StartsWith('base64:')) {
        $Value = [System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($Value.Substring(7)))
    }
    $Value.Trim()
}

function Get-KeyFile {
    # The file in which sshd looks for the keys of a user, by its own word: it knows who is an administrator.
    param ([string] $Path, [string] $User)
    if (-not $User) {
        return $Keys
    }
    try {
        $sid = (New-Object -TypeName System.Security.Principal.NTAccount -ArgumentList $User).Translate([System.Security.Principal.SecurityIdentifier]).Value
    }
    catch {
        throw "There is no user $User. Create it, or name another one."
    }
    $answer = Invoke-Sshd -Path $Path -ArgumentList '-T', '-C', "user=$User,host=localhost,addr=127.0.0.1"
    $line = @($answer.Lines | Where-Object -FilterScript { $_ -match '^authorizedkeysfile\s+\S' })
    if ($answer.Code -or -not $line.Count) {
        throw "sshd does not say where it looks for the keys of ${User}: $($answer.Lines -join ' ')"
    }
    $file = ($line[0] -split '\s+')[1].Replace('__PROGRAMDATA__', $env:ProgramData).Replace('/', '\')
    if ([System.IO.Path]::IsPathRooted($file)) {
        return $file
    }
    $known = "HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList\$sid"
    if (-not (Test-Path -LiteralPath $known)) {
        throw "$User has no profile yet, so there is no place for the key. Let $User log in once, or make $User an administrator."
    }
    $home_folder = [Environment]::ExpandEnvironmentVariables((Get-ItemProperty -LiteralPath $known).ProfileImagePath)
    Join-Path -Path $home_folder -ChildPath $file
}

function Add-Key {
    # Adds the keys that are not there; says whether there were any.
    param ([string] $Path, [string[]] $Wanted)
    $pattern = '(?:ssh|ecdsa|sk)-\S+[ \t]+([A-Za-z0-9+/=]+)'
    $lines = @((Read-Text -Path $Path) -split "`r?`n" | Where-Object -FilterScript { $_ })
    $present = @($lines | Where-Object -FilterScript { $_ -match $pattern } | ForEach-Object -Process { if ($_ -match $pattern) { $Matches[1] } })
    $missing = @($Wanted | Where-Object -FilterScript { $_ -match $pattern -and $present -cnotcontains $Matches[1] })
    if ($missing.Count -or (Test-Marked -Path $Path)) {
        $folder_of_file = Split-Path -Path $Path -Parent
        if (-not (Test-Path -LiteralPath $folder_of_file)) {
            $null = New-Item -Path $folder_of_file -ItemType Directory
        }
        Write-Text -Path $Path -Value ((($lines + $missing) -join "`n") + "`n")
        $true
    }
    else {
        $false
    }
}

function Set-Shell {
    # Ansible is told to expect PowerShell. A shell that somebody chose stays.
    $key = 'HKLM:\SOFTWARE\OpenSSH'
    if (-not (Test-Path -LiteralPath $key)) {
        $null = New-Item -Path $key
    }
    if ((Get-Item -LiteralPath $key).GetValueNames() -contains 'DefaultShell') {
        return $false
    }
    $shell = Join-Path -Path $env:SystemRoot -ChildPath 'System32\WindowsPowerShell\v1.0\powershell.exe'
    $null = New-ItemProperty -LiteralPath $key -Name DefaultShell -Value $shell -PropertyType String
    $true
}

function Repair-Access {
    # Says whether anything had to be protected.
    $exposed = @(Get-Unprotected)
    foreach ($item in $exposed) {
        Set-Access -Path $item.Path -Sddl $item.Sddl
    }
    [bool] $exposed.Count
}

function Initialize-Server {
    # Gets a machine on which nothing answers to the point where the key opens it. Says whether anything had to be done.
    param ([string] $User, [string[]] $Wanted)
    $done = $false
    if ($User -and $User -notmatch '^[^\s"/\[\]:;|=,+*?<>%]{1,104}$') {
        throw 'ARCFLEET_USER is not the name of a user.'
    }
    if (@($Wanted | Where-Object -FilterScript { $_ -notmatch '^[^\r\n]*(?:ssh|ecdsa|sk)-\S+[ \t]+[A-Za-z0-9+/=]{20,}' }).Count) {
        throw 'ARCFLEET_KEY has a line that is not a public key.'
    }
    if (-not (Get-Sshd)) {
        if (Install-Server) {
            throw 'OpenSSH was installed, and Windows has to start anew before it works. Restart the machine and run this again.'
        }
        $done = $true
    }
    $done = (Repair-Access) -or $done
    $sshd = Get-Sshd
    if ($sshd.StartMode -ne 'Auto') {
        Set-Service -Name sshd -StartupType Automatic
        $done = $true
    }
    if (-not $sshd.Running) {
        Start-Service -Name sshd
        $done = $true
    }
    $done = (Set-Shell) -or $done
    if ($Wanted.Count) {
        $file = Get-KeyFile -Path $sshd.Path -User $User
        $done = (Add-Key -Path $file -Wanted $Wanted) -or $done
        $done = (Repair-Access) -or $done
    }
    $done
}

function Write-Report {
    # One line of JSON in ASCII, whatever code page the output has.
    param ([bool] $Done, [string] $Problem)
    $known = @{ effective = @(); listeners = @(); host_keys = @(); version = '' }
    try {
        $known = Get-State
    }
    catch {
        $Problem = "$Problem $($_.Exception.Message)".Trim()
    }
    $report = [ordered] @{
        arcfleet = 1
        changed = $Done
        port = @($known.effective | Where-Object -FilterScript { $_ -match '^port \d+$' } | ForEach-Object -Process { [int] ($_ -split ' ')[1] })
        listeners = @($known.listeners | ForEach-Object -Process { if ($_.address.Contains(':')) { "[$($_.address)]:$($_.port)" } else { "$($_.address):$($_.port)" } })
        host_keys = @($known.host_keys)
        version = $known.version
        # The run command keeps the last 4 KB of the output.
        problem = if ($Problem) { $Problem.Substring(0, [Math]::Min($Problem.Length, 1000)) } else { $null }
    }
    $json = ConvertTo-Json -InputObject $report -Compress
    [regex]::Replace($json, '[^\x20-\x7e]', { param ($match) '\u{0:x4}' -f [int] [char] $match.Value })
}

if ($Action -eq 'bootstrap') {
    $done = $false
    $problem = ''
    try {
        $lines = @((ConvertFrom-Parameter -Value $ARCFLEET_KEY) -split "`r?`n" | Where-Object -FilterScript { $_.Trim() })
        $done = Initialize-Server -User (ConvertFrom-Parameter -Value $ARCFLEET_USER) -Wanted $lines
        $missing = @(Wait-Listener -Wanted @((Get-State).effective | Where-Object -FilterScript { $_ -match '^port \d+$' } | ForEach-Object -Process { [int] ($_ -split ' ')[1] }))
        if ($missing.Count) {
            throw "sshd runs and does not listen on port $($missing -join ', '). Another program may hold it."
        }
    }
    catch {
        $problem = $_.Exception.Message
    }
    Write-Report -Done $done -Problem $problem
    exit [int] [bool] $problem
}

$changed = $false
$result = @{}
$diff = $null
if ($Action -eq 'look') {
    $result = Get-State
}
elseif ($Action -eq 'install' -and -not (Get-Sshd)) {
    $changed = $true
    if ($PSCmdlet.ShouldProcess($Capability, 'install')) {
        $result.restart_needed = Install-Server
    }
}
elseif ($Action -eq 'protect') {
    $changed = [bool] @(Get-Unprotected).Count
    if ($PSCmdlet.ShouldProcess($Folder, 'set owner and permissions')) {
        $null = Repair-Access
    }
}
elseif ($Action -eq 'firewall' -and (Get-Firewall)) {
    $changed = $true
    if ($PSCmdlet.ShouldProcess($FirewallRule, 'disable')) {
        Disable-NetFirewallRule -Name $FirewallRule
    }
}
elseif ($Action -eq 'change') {
    $changed = $true
    $diff = @{ before = Read-Text -Path $Config; after = $Text }
    if ($PSCmdlet.ShouldProcess($Config, 'change')) {
        Update-Config
    }
}
elseif ($Action -eq 'confirm' -and $PSCmdlet.ShouldProcess($TaskName, 'cancel')) {
    Clear-State
}
elseif ($Action -eq 'revert' -and $PSCmdlet.ShouldProcess($Config, 'restore')) {
    $changed = Restore-Config
}

if (Test-Path -Path 'Variable:Ansible') {
    $Ansible.Changed = $changed
    $Ansible.Result = $result
    if ($diff) {
        $Ansible.Diff = $diff
    }
}
