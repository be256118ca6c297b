"""What the measuring scripts of benches/ share. Python's standard library only; needs no network but loopback."""
