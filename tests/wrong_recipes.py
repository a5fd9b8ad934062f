"""Recipes that are wrong on purpose."""

TEN_FAULTS = """\
bmcli: 1
name: "bad name"
seeed: 3
data:
  source: {kind: builtin, name: digitz}
  split: {validation: 1.5}
model: {kind: mpl, hidden: 64}
train:
  epochs: ten
  optimizer: {kind: adamw, learning_rat: 1e-3}
  stop: {time: 30x}
runtime: {jit: 7}
evaluate: {gates: {accuracy: high}, split: tset}
"""
