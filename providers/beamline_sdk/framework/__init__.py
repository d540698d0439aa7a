"""The provider framework: what a provider is, what it is made from, and how its configuration is read.

A provider is anything with a configuration and a life: a client of a model's API (:class:`SDKProvider`), a
place where workloads run (:class:`DeploymentProvider`), an extension (:class:`HostedExtension`). The registry
of :mod:`beamline_sdk.registry` keeps them.
"""

from .configuration import ConfigurationError, load_config, read_file
from .deployment import (
    DeploymentConfig,
    DeploymentProvider,
    DeploymentResult,
    KubernetesDeploymentProvider,
    ProcessDeploymentProvider,
)
from .factory import ProviderFactory, UnknownProviderError
from .hosted import ExtensionProvider, HostedConfig, HostedExtension
from .provider import KINDS, BaseProvider, HealthStatus, ProviderConfig, ProviderHealth, ProviderKind
from .sdk import SDKConfig, SDKProvider, SDKResponse

__all__ = [
    "KINDS",
    "BaseProvider",
    "ConfigurationError",
    "DeploymentConfig",
    "DeploymentProvider",
    "DeploymentResult",
    "ExtensionProvider",
    "HealthStatus",
    "HostedConfig",
    "HostedExtension",
    "KubernetesDeploymentProvider",
    "ProcessDeploymentProvider",
    "ProviderConfig",
    "ProviderFactory",
    "ProviderHealth",
    "ProviderKind",
    "SDKConfig",
    "SDKProvider",
    "SDKResponse",
    "UnknownProviderError",
    "load_config",
    "read_file",
]
