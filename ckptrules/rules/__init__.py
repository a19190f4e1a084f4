"""Compiles YAML files into a `RuleSet`, and tests it with its own examples."""
