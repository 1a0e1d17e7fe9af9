# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How do the options of the Azure login read in the documentation of modules and of plugins?

`DOCUMENTATION` is for modules, `PLUGIN` for plugins, whose environment variables are declared. What the options mean is
`_auth`'s: option, else environment, else credential file, else Azure CLI. Private to arcfleet.ssh.
"""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the login, once for modules and once for plugins."""

    DOCUMENTATION = r"""
options:
  auth_source:
    description:
      - Where the identity comes from.
      - With V(auto), the first of these that is there - the options of this task, the environment, the profile in
        C(~/.azure/credentials), the Azure CLI.
      - With V(env), V(credential_file), V(cli) or V(msi), only the environment, the credential file, C(az login) or
        the managed identity of this machine.
      - When it is not set, E(ANSIBLE_AZURE_AUTH_SOURCE) is used.
    type: str
    choices: [auto, env, cli, credential_file, msi]
    default: auto
  profile:
    description:
      - The profile in C(~/.azure/credentials), else E(AZURE_PROFILE), else V(default).
    type: str
  subscription_id:
    description:
      - The subscription that is meant where none is named otherwise, a GUID.
      - When it is not set, E(AZURE_SUBSCRIPTION_ID) is used.
    type: str
  client_id:
    description:
      - The application (client) id of the service principal, or of a user-assigned managed identity.
      - When it is not set, E(AZURE_CLIENT_ID) is used.
    type: str
  secret:
    description:
      - The secret of the service principal.
      - When it is not set, E(AZURE_SECRET) or E(AZURE_CLIENT_SECRET) is used.
    type: str
  tenant:
    description:
      - The tenant of the identity, a GUID or a domain name.
      - When it is not set, E(AZURE_TENANT) or E(AZURE_TENANT_ID) is used.
    type: str
  x509_certificate_path:
    description:
      - A PEM or PFX file that holds the certificate and the private key of the service principal.
      - When it is not set, E(AZURE_X509_CERTIFICATE_PATH) or E(AZURE_CLIENT_CERTIFICATE_PATH) is used.
    type: path
  oidc_token:
    description:
      - A token of a federated identity (workload identity federation) that proves who the service principal is.
      - When it is not set, E(AZURE_OIDC_TOKEN) is used.
    type: str
  oidc_token_file_path:
    description:
      - A file that holds such a token, and is read again whenever a new login is needed.
      - When it is not set, E(AZURE_OIDC_TOKEN_FILE_PATH) or E(AZURE_FEDERATED_TOKEN_FILE) is used.
    type: path
  cloud_environment:
    description:
      - V(AzureCloud), V(AzureUSGovernment), V(AzureChinaCloud), or the C(https) URL of a cloud that describes itself at
        C(/metadata/endpoints).
      - When it is not set, E(AZURE_CLOUD_ENVIRONMENT) is used, else the cloud that the profile names, else V(AzureCloud).
    type: str
requirements:
  - azure-identity (Python package)
  - azure-mgmt-core (Python package)
  - requests (Python package)
notes:
  - Certificates of private clouds and of intercepting proxies are verified with the CA in E(REQUESTS_CA_BUNDLE) or
    E(SSL_CERT_FILE). There is no option that turns verification off.
"""

    PLUGIN = r"""
options:
  auth_source:
    description:
      - Where the identity comes from.
      - With V(auto), the first of these that is there - these options, the environment, the profile in
        C(~/.azure/credentials), the Azure CLI.
      - With V(env), V(credential_file), V(cli) or V(msi), only the environment, the credential file, C(az login) or
        the managed identity of this machine.
    type: str
    choices: [auto, env, cli, credential_file, msi]
    default: auto
    env:
      - name: ANSIBLE_AZURE_AUTH_SOURCE
  profile:
    description:
      - The profile in C(~/.azure/credentials); V(default) where none is named.
    type: str
    env:
      - name: AZURE_PROFILE
  subscription_id:
    description:
      - The subscription that is meant where none is named otherwise, a GUID.
    type: str
    env:
      - name: AZURE_SUBSCRIPTION_ID
  client_id:
    description:
      - The application (client) id of the service principal, or of a user-assigned managed identity.
    type: str
    env:
      - name: AZURE_CLIENT_ID
  secret:
    description:
      - The secret of the service principal.
    type: str
    env:
      - name: AZURE_SECRET
      - name: AZURE_CLIENT_SECRET
  tenant:
    description:
      - The tenant of the identity, a GUID or a domain name.
    type: str
    env:
      - name: AZURE_TENANT
      - name: AZURE_TENANT_ID
  x509_certificate_path:
    description:
      - A PEM or PFX file that holds the certificate and the private key of the service principal.
    type: path
    env:
      - name: AZURE_X509_CERTIFICATE_PATH
      - name: AZURE_CLIENT_CERTIFICATE_PATH
  oidc_token:
    description:
      - A token of a federated identity (workload identity federation) that proves who the service principal is.
    type: str
    env:
      - name: AZURE_OIDC_TOKEN
  oidc_token_file_path:
    description:
      - A file that holds such a token, and is read again whenever a new login is needed.
    type: path
    env:
      - name: AZURE_OIDC_TOKEN_FILE_PATH
      - name: AZURE_FEDERATED_TOKEN_FILE
  cloud_environment:
    description:
      - V(AzureCloud), V(AzureUSGovernment), V(AzureChinaCloud), or the C(https) URL of a cloud that describes itself at
        C(/metadata/endpoints).
      - Where neither this nor the profile names the cloud, it is V(AzureCloud).
    type: str
    env:
      - name: AZURE_CLOUD_ENVIRONMENT
requirements:
  - azure-identity (Python package)
  - azure-mgmt-core (Python package)
  - requests (Python package)
notes:
  - Certificates of private clouds and of intercepting proxies are verified with the CA in E(REQUESTS_CA_BUNDLE) or
    E(SSL_CERT_FILE). There is no option that turns verification off.
"""
