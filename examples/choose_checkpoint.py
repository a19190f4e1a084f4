"""Choose a checkpoint for inference: ``python choose_checkpoint.py outputs ocr_training``."""

import sys

import ckptrules

outputs, experiment = sys.argv[1:]
records = [record for record in ckptrules.catalog(outputs) if record.experiment == experiment]
for record in records:
    print(record.kind, record.epoch, record.step, record.metric, record.value, record.path)

chosen = ckptrules.best(records, "max", "hmean") or ckptrules.latest(records)
if chosen is None:
    sys.exit(f"no checkpoint in {outputs} for {experiment}")
print("load:", chosen.path)  # torch.load(chosen.path, weights_only=True)
