"""What names say in words: read by tokens, and rather not at all than wrongly."""

from __future__ import annotations

from itertools import product

from ckptrules.engine.names.words import read_words
from tests.support.tables import every

READ = {
    "epoch100.pth": {"run": "", "epoch": "100"},
    "EPOCH_7": {"run": "", "epoch": "7"},
    "coco_oi_epoch12.ckpt": {"run": "coco_oi_", "epoch": "12"},
    "epoch:15-step:528-loss:0.669.ckpt": {"run": "", "epoch": "15", "step": "528", "loss": "0.669"},
    "epoch%3D3479-step%3D939600.ckpt": {"run": "", "epoch": "3479", "step": "939600"},
    "epoch=3-loss=-1.5.ckpt": {"run": "", "epoch": "3", "loss": "-1.5"},
    "epoch-3-val_loss-0.5.ckpt": {"run": "", "epoch": "3", "val_loss": "0.5"},
    "epoch-3-reward--12.5.ckpt": {"run": "", "epoch": "3", "reward": "-12.5"},
    "epoch3-val_loss-0.5.ckpt": {"run": "", "epoch": "3"},  # nobody knows whether the dash is a sign
    "ep100_reward-12.pt": {"run": "", "epoch": "100"},
    "epoch=3-val_loss=nan.ckpt": {"run": "", "epoch": "3", "val_loss": "nan"},
    "epoch139-val_loss5.260e-05.ckpt": {"run": "", "epoch": "139", "val_loss": "5.260e-05"},
    "step-001715-epoch-50.pt": {"run": "", "step": "001715", "epoch": "50"},
    "epoch=2-step=10524-val_acc_epoch=0.9300.ckpt": {
        "run": "", "epoch": "2", "step": "10524", "val_acc_epoch": "0.9300"
    },
    "N_epoch=3_global_step=0.ckpt": {"run": "N_", "epoch": "3", "step": "0"},
    "epoch_epoch=09-step_step=4140.ckpt": {"run": "", "epoch": "09", "step": "4140"},
    "epoch_epoch=epoch=14-val_loss=val_loss=1.010.ckpt": {"run": "", "epoch": "14", "val_loss": "1.010"},
    "epoch=03-val_rho_combined_avg=0.816.ckpt": {"run": "", "epoch": "03", "val_rho_combined_avg": "0.816"},
    "60k_epoch4-d0f474de.pt": {"note": "d0f474de", "run": "60k_", "epoch": "4"},
    "x-epoch=3-v10.ckpt": {"version": "10", "run": "x-", "epoch": "3"},
    "vit_b_32-laion400m_e31-d867053b.pt": {"note": "d867053b", "run": "vit_b_32-laion400m_", "epoch": "31"},
    "BYOLAs64x96-e100-bs256-lr0003.pth": {"run": "BYOLAs64x96-_bs256_lr0003", "epoch": "100"},
    "epoch_12_student.pth": {"run": "_student", "epoch": "12"},
    "VGG_SSD_300x300_ft_iter_120000.pt": {"run": "VGG_SSD_300x300_ft_", "step": "120000"},
    "epoch_3_ckpt.pth": {"run": "", "epoch": "3", "note": "ckpt"},
    "iter-000400-ckpt.pth": {"run": "", "step": "000400", "note": "ckpt"},
    "model.pt.ep3": {"run": "model.pt.", "epoch": "3"},
    "image_classifier_epoch3.pth": {"run": "image_classifier_", "epoch": "3"},
    "epoch_5_client2.pt": {"run": "_client2", "epoch": "5"},
    "epoch-5-resnet50-acc-0.9.pth": {"run": "_resnet50", "epoch": "5", "acc": "0.9"},
    "x_epoch_5_lr_1e-4_loss_0.5.pt": {"run": "x__lr1e-4", "epoch": "5", "loss": "0.5"},
    "epoch_5-v2.pth": {"run": "_v2", "epoch": "5"},
    "epoch_5_batch_200_acc_98.pt": {"run": "", "epoch": "5", "batch": "200", "acc": "98"},
    "epoch_5_frames_200.pt": {"run": "", "epoch": "5", "frames": "200"},
    "epoch_1_val_86.pth": {"run": "", "epoch": "1", "val": "86"},
    "epoch=3-bs=32.ckpt": {"run": "", "epoch": "3", "bs": "32"},
    "checkpoint_epoch_00010.pyth": {"run": "checkpoint_", "epoch": "00010"},
    "epoch_3.loss0.5": {"run": "", "epoch": "3", "loss": "0.5"},
    "last_cartpole_ep_150_rew__4.6873245_.pth": {"run": "last_cartpole_", "epoch": "150", "rew": "4.6873245"},
}  # fmt: skip
NOT_READ = (
    "ep1-ba42-rank0",
    "pretrained-epoch-24-avg-10.pt",
    "last_epoch.ckpt",
    "12-model-0.9999.chk.pt",
    "epochs_20_lr_1e-05.pth",
    "MaxEpoch_20.pth",
    "step-abc.ckpt",
    "stepped-1.ckpt",
    "step=1e5.ckpt",
    "step_1M_loss0.5.pt",
    "step_10k-loss0.5.pt",
    "epoch_1st_00010.pth",
    "epoch_10_stage_1.pth",
    "epoch=5-phase=2.ckpt",
    "rl_model_replay_buffer_200_steps.pkl",
    "epoch=3.ckpt.tmp",
    "epoch=3 (1).ckpt",
    "epoch=3-copy.ckpt",
    "epoch=3.5.ckpt",
    "epoch_3_loss_.5.ckpt",
    "epoch٣.ckpt",
    "epoch=1e-05.ckpt",
    "lr-5e-5-v2.ckpt",
    "lr_1e5.ckpt",
    "type_e_5.pt",
    "model3e5.pt",
    "epoch=3-epoch=4.ckpt",
    "epoch=3-unfinished",
    "epoch3-shard2.pt",
    "fold1_epoch3.pt",
    "net_epoch_5_seed_3.pth",
    "epoch5_split2.pt",
    "model-00001-of-00003.safetensors",
    "epoch----3.pt",
    "rl-video-step-1000.mp4",
    "epoch_3.mp4",
    "epoch_3_acc0.9.mp4",
    "epoch_3.h264",
    "step_10.f32",
    "features_epoch_1.npz",
    "val-predictions-step-20.pkl",
    "Metrics_epoch_3.pkl",
    "epoch=3-run=4.pt",
    "",
    "-",
    "epoch",
    "\udcff",
)


@every(list(READ))
def test_a_name_is_read(name: str) -> None:
    assert read_words(name) == READ[name]


@every(NOT_READ)
def test_what_is_not_understood_is_not_read(name: str) -> None:
    assert read_words(name) is None


@every([*product(READ, ("-rank0", "_shard3", ".tmp", "-copy", " (1)", "-of-4", "_part_2", ".bak"))])
def test_a_piece_or_a_copy_is_not_taken_for_the_whole(row: tuple[str, str]) -> None:
    name, ending = row
    assert read_words(name.rpartition(".")[0] + ending) is None
