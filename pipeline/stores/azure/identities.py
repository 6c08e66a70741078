"""Identities that give tokens instead of keys; their library takes long to load, and is where one is asked for."""

from __future__ import annotations

from azure.core.credentials import TokenCredential
from azure.identity import DefaultAzureCredential, EnvironmentCredential, ManagedIdentityCredential


def default(client_id: str | None) -> TokenCredential:
    """Azure's own chain, with this user-assigned identity of the machine if one is named."""
    return DefaultAzureCredential(managed_identity_client_id=client_id)


def managed(client_id: str | None) -> TokenCredential:
    """The machine's identity, or this user-assigned one of it."""
    return ManagedIdentityCredential(client_id=client_id)


def principal() -> TokenCredential:
    """The service principal that AZURE_TENANT_ID, AZURE_CLIENT_ID and a secret or certificate name."""
    return EnvironmentCredential()
