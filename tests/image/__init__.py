"""The images, built by `make image-test` and run by docker or podman."""
