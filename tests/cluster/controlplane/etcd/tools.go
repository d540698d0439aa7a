//go:build tools

// Package tools pins etcd apart from Kubernetes, whose go.mod asks for another version of its client.
package tools

import _ "go.etcd.io/etcd/server/v3"
