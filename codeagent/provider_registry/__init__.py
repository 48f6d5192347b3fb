"""What the installation keeps of its model providers: how their calls went, and what opens them."""
