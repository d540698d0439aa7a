"""What changes by itself: traffic, breakers, canaries and the trails of requests, and how it is told on."""
