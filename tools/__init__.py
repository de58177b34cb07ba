"""What developers run on their own machine: code generation and the local stack. No service imports it."""
