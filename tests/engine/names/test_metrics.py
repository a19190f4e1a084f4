"""What the name of a metric tells."""

from __future__ import annotations

from ckptrules.engine.names.metrics import mode_of
from tests.support.tables import every_row


@every_row(
    ("mode", "metrics"),
    [
        ("min", "loss val_loss valLoss train/loss eval-loss error err wer CER mae val_rmse perplexity ppl fid nll"),
        ("min", "val_mape EPE minADE mcd kid ece"),
        ("max", "rougeL val_rougeLsum success_rate pesq stoi si_sdr chrf pck NDS"),
        (
            "max",
            "acc val_acc acc1 top1 top5 accuracy valAccuracy f1 macro_f1 auc mAP mAP50 mIoU dice hmean bleu psnr R2",
        ),
        ("", "foo lr epoch step time batch_size seed lambda count neg_loss val_neg_loss neg_mean_squared_error"),
        # how far it has moved, what it is multiplied with, or words for both ends
        ("", "acc_drop val_accuracy_gap valLossDrop accDrop dropLoss loss_scale loss_delta val_loss_improvement"),
        (
            "",
            "f1_diff error_reduction lossDecrease wer-change loss_std acc_drop2 acc_error error/acc mse_score inaccuracy",
        ),
        ("min", "dice_loss val_dice_loss_epoch iou_loss top1_err top5_error val/top1_err dropout_loss"),
        ("max", "acc_norm weighted_f1 worst_acc"),
    ],
)
def test_a_metric_is_known_by_its_words(mode: str, metrics: str) -> None:
    assert {metric: mode_of(metric) for metric in metrics.split()} == dict.fromkeys(metrics.split(), mode)
