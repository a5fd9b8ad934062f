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

THREE_WRONG_ENTRIES = """\
bmcli: 1
name: searched
data: {source: {kind: builtin, name: digits}, inputs: {image: {kind: image}}}
model: {kind: cnn, filters: [8]}
tune:
  space:
    train.optimizer.learning_rate: {log: [0, 1e-2]}
    model.filter: {choice: [[16, 32], [32, 64]]}
    train.batch_size: {int: [0, 256]}
    model.dropout: {float: [0, 0.5]}
"""
