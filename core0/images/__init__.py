"""OCI images: pulled without privilege, verified, each layer one read-only EROFS file."""
