"""What the end-to-end cases stand on: the cluster by kubectl and Helm, installations, clients in pods."""
