//go:build tools

// Package tools pins Helm apart from Kubernetes, whose client it brings in another version.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
