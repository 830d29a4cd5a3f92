"""Speed and quality of atypia, measured side by side with what it is compared to."""
