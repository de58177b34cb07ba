"""What the scheduler knows: pure values and rules, without IO and without a clock."""
