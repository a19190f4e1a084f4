"""A small tree of each framework from Composer to Ultralytics, as in `test_trees2`."""

from __future__ import annotations

import os
from pathlib import Path

from ckptrules.engine.entries import Directory
from ckptrules.outputs.listing import scan
from ckptrules.rules.packs import sources
from tests.packs.test_trees2 import Tree, check, make, planned
from tests.support.tables import every_in_a_folder

LOGS = "lightning_logs/version_0"
TREES = {
    "lightning: the newest, and last.ckpt": Tree(
        f"{LOGS}/checkpoints",
        f"""{LOGS}/checkpoints/epoch=0-step=10.ckpt {LOGS}/checkpoints/epoch=1-step=20.ckpt
        {LOGS}/checkpoints/epoch=1-step=20-v1.ckpt {LOGS}/checkpoints/epoch=2-step=30.ckpt {LOGS}/checkpoints/last.ckpt
        {LOGS}/checkpoints/epoch=2-fold=1.ckpt {LOGS}/hparams.yaml""",
        ["lightning"],
        "epoch=0-step=10.ckpt epoch=1-step=20.ckpt epoch=1-step=20-v1.ckpt",
        "epoch=2-step=30.ckpt last.ckpt",
        unread="epoch=2-fold=1.ckpt",
    ),
    "lightning: metrics.csv counts one step less than names": Tree(
        f"{LOGS}/checkpoints",
        rf"""{LOGS}/checkpoints/epoch=0-step=10.ckpt {LOGS}/checkpoints/epoch=1-step=20.ckpt
        {LOGS}/checkpoints/epoch=2-step=30.ckpt {LOGS}/checkpoints/epoch=3-step=40.ckpt
        {LOGS}/metrics.csv=epoch,step,val_loss\n0,9,0.5\n1,19,0.1\n2,20,0.01\n2,29,0.7\n3,39,0.6\n""",
        ["lightning"],
        "epoch=0-step=10.ckpt epoch=2-step=30.ckpt",
        "epoch=1-step=20.ckpt epoch=3-step=40.ckpt",
        keep="keep_best: {metric: val_loss, mode: min, count: 1}",
    ),
    "lightning: what stands in front is a run, and each run keeps its newest": Tree(
        "checkpoints",
        """checkpoints/bert-epoch=0.ckpt checkpoints/bert-epoch=1.ckpt checkpoints/fold=1-epoch=0.ckpt
        checkpoints/fold=2-epoch=0-val_loss=0.1.ckpt checkpoints/best-epoch=0.ckpt""",
        ["lightning"],
        "bert-epoch=0.ckpt",
        "bert-epoch=1.ckpt fold=1-epoch=0.ckpt fold=2-epoch=0-val_loss=0.1.ckpt best-epoch=0.ckpt",
    ),
    "lightning: folders of DeepSpeed": Tree(
        "checkpoints",
        """checkpoints/epoch=0-step=10.ckpt/checkpoint/mp_rank_00_model_states.pt
        checkpoints/epoch=1-step=20.ckpt/checkpoint/mp_rank_00_model_states.pt checkpoints/epoch=2-step=30.ckpt/latest""",
        ["lightning"],
        "epoch=0-step=10.ckpt",
        "epoch=1-step=20.ckpt",
        unwhole="epoch=2-step=30.ckpt",
    ),
    "cosmos: an iteration is one checkpoint, whole where each of the folders has it": Tree(
        "p/g/n/checkpoints",
        """p/g/n/checkpoints/{model,optim,scheduler,trainer}/iter_00000{1000,2000}.pt p/g/n/checkpoints/model/iter_000003000.pt
        p/g/n/checkpoints/latest_checkpoint.txt=iter_000003000.pt""",
        ["cosmos"],
        "model/iter_000001000.pt optim/iter_000001000.pt scheduler/iter_000001000.pt trainer/iter_000001000.pt",
        "model/iter_000002000.pt optim/iter_000002000.pt scheduler/iter_000002000.pt trainer/iter_000002000.pt",
        unwhole="model/iter_000003000.pt",
    ),
    "cosmos: folders are whole with the weights and the trainer": Tree(
        "checkpoints",
        """checkpoints/iter_00000{1000,2000}/{model,optim,scheduler,trainer}/.metadata checkpoints/iter_000003000/model/.metadata
        checkpoints/latest_checkpoint.txt=iter_000002000""",
        ["cosmos"],
        "iter_000001000",
        "iter_000002000",
        unwhole="iter_000003000",
    ),
    "nemo: a twin goes with its checkpoint, and what is unfinished makes none go": Tree(
        "gpt/checkpoints",
        """gpt/checkpoints/gpt--val_loss=3.5-step=100{,-EMA}.ckpt gpt/checkpoints/gpt--val_loss=3.4-step=200{,-EMA}.ckpt
        gpt/checkpoints/gpt--val_loss=3.3-step=300{,-EMA}.ckpt gpt/checkpoints/gpt--val_loss=3.3-step=300-unfinished
        gpt/checkpoints/gpt--val_loss=3.4-step=200-last{,-EMA}.ckpt gpt/checkpoints/gpt.nemo""",
        ["nemo"],
        "gpt--val_loss=3.5-step=100.ckpt gpt--val_loss=3.5-step=100-EMA.ckpt",
        """gpt--val_loss=3.4-step=200.ckpt gpt--val_loss=3.4-step=200-EMA.ckpt gpt--val_loss=3.4-step=200-last.ckpt
        gpt--val_loss=3.4-step=200-last-EMA.ckpt gpt.nemo""",
        unwhole="gpt--val_loss=3.3-step=300.ckpt gpt--val_loss=3.3-step=300-EMA.ckpt",
    ),
    "nemo: who was killed before the twin was saved leaves a pair before": Tree(
        "gpt/checkpoints",
        "gpt/checkpoints/gpt--loss=3.5-step={1,2,3}{,-EMA}.ckpt gpt/checkpoints/gpt--loss=3.4-step=4.ckpt gpt/nemo_error_log.txt",
        ["nemo"],
        "gpt--loss=3.5-step=1.ckpt gpt--loss=3.5-step=1-EMA.ckpt",
        """gpt--loss=3.5-step=2.ckpt gpt--loss=3.5-step=2-EMA.ckpt
        gpt--loss=3.5-step=3.ckpt gpt--loss=3.5-step=3-EMA.ckpt""",
        unwhole="gpt--loss=3.4-step=4.ckpt",
    ),
    "nemo: all ranks or none, and the newest is the newest that all of them have": Tree(
        "gpt/checkpoints",
        """gpt/checkpoints/mp_rank_0{0,1}/gpt--loss=3.5-step=1.ckpt gpt/checkpoints/mp_rank_0{0,1}/gpt--loss=3.4-step=2.ckpt
        gpt/checkpoints/mp_rank_00/gpt--loss=3.3-step=3.ckpt gpt/nemo_error_log.txt""",
        ["nemo"],
        "mp_rank_00/gpt--loss=3.5-step=1.ckpt mp_rank_01/gpt--loss=3.5-step=1.ckpt",
        "mp_rank_00/gpt--loss=3.4-step=2.ckpt mp_rank_01/gpt--loss=3.4-step=2.ckpt",
        unwhole="mp_rank_00/gpt--loss=3.3-step=3.ckpt",
    ),
    "nemo: folders": Tree(
        "llm/checkpoints",
        """llm/checkpoints/llm--loss=2.5-step=9/weights/common.pt llm/checkpoints/llm--loss=2.1-step=18/weights/common.pt
        llm/checkpoints/llm--loss=2.1-step=18-last/weights/common.pt llm/checkpoints/llm--loss=2.0-step=27/context/io.json""",
        ["nemo"],
        "llm--loss=2.5-step=9",
        "llm--loss=2.1-step=18 llm--loss=2.1-step=18-last",
        unwhole="llm--loss=2.0-step=27",
    ),
    "huggingface: what lacks a rank of DeepSpeed, or its weights, makes no whole one go": Tree(
        "sft",
        r"""sft/checkpoint-{500,1000,1500,2000}/trainer_state.json={} sft/checkpoint-{500,1000,1500,2000}/config.json={}
        sft/checkpoint-{500,1000,1500}/global_step9/mp_rank_00_model_states.pt sft/checkpoint-{500,1000,1500}/rng_state_{0,1,2}.pth
        sft/checkpoint-{500,1000}/global_step9/zero_pp_rank_{0,1,2}_mp_rank_00_optim_states.pt
        sft/checkpoint-1500/global_step9/zero_pp_rank_{0,2}_mp_rank_00_optim_states.pt sft/checkpoint-2000/training_args.bin""",
        ["huggingface"],
        "checkpoint-500",
        "checkpoint-1000",
        unwhole="checkpoint-1500 checkpoint-2000",
    ),
    "huggingface: the best that the newest names stays": Tree(
        "sft",
        r"""sft/checkpoint-{500,1000,1500,2000}/model.safetensors sft/checkpoint-500/trainer_state.json={}
        sft/checkpoint-1000/trainer_state.json={"best_model_checkpoint":"sft/checkpoint-500"}
        sft/checkpoint-1500/trainer_state.json={"best_model_checkpoint":"sft/checkpoint-1000"}
        sft/checkpoint-500-backup/trainer_state.json sft/tmp-checkpoint-2500/model.safetensors sft/model.safetensors
        sft/model-00001-of-00002.safetensors sft/config.json sft/tokenizer.model sft/runs/x sft/cat-000002.safetensors""",
        ["huggingface"],
        "checkpoint-500",
        "checkpoint-1000 checkpoint-1500",
        unread="checkpoint-500-backup cat-000002.safetensors",
        unwhole="checkpoint-2000",
    ),
    "huggingface: the best by the loss inside": Tree(
        "sft",
        r"""sft/checkpoint-1/trainer_state.json={"log_history":[{"step":1,"eval_loss":0.2}]}
        sft/checkpoint-2/trainer_state.json={"log_history":[{"step":1,"eval_loss":0.2},{"step":2,"eval_loss":0.4}]}
        sft/checkpoint-3/trainer_state.json={"log_history":[{"step":2,"eval_loss":0.4},{"step":3,"eval_loss":0.3}]}""",
        ["huggingface"],
        "checkpoint-2",
        "checkpoint-1 checkpoint-3",
        keep="keep_best: {metric: eval_loss, mode: min, count: 1}",
    ),
    "huggingface: the best that the state of the whole run names stays": Tree(
        "sft",
        r"""sft/checkpoint-{500,1000,1500,2000}/model.safetensors sft/checkpoint-{500,1000,1500,2000}/trainer_state.json={}
        sft/trainer_state.json={"best_model_checkpoint":"sft/checkpoint-500"}
        sft/logging.jsonl={"loss":1}\n{"best_model_checkpoint":"/x/sft/checkpoint-1000"}""",
        ["huggingface"],
        "checkpoint-1500",
        "checkpoint-500 checkpoint-1000 checkpoint-2000",
    ),
    "huggingface: ms-swift upon Megatron": Tree(
        "mega",
        r"""mega/checkpoint-{10,20,30}/iter_00000{10,20,30}/metadata.json mega/checkpoint-40/iter_0000040/common.pt
        mega/checkpoint-{10,20,30,40}/latest_checkpointed_iteration.txt
        mega/logging.jsonl={"best_model_checkpoint":"/x/mega/checkpoint-10"}""",
        ["huggingface"],
        "checkpoint-20",
        "checkpoint-10 checkpoint-30",
        unwhole="checkpoint-40",
    ),
    "huggingface: accelerate": Tree(
        "run/checkpoints",
        "run/checkpoints/checkpoint_{0..2}/{random_states_0.pkl,model.safetensors} run/checkpoints/checkpoint_3/model.safetensors",
        ["huggingface"],
        "checkpoint_0 checkpoint_1",
        "checkpoint_2",
        unwhole="checkpoint_3",
    ),
    "mmengine: what last_checkpoint names by a path of another machine stays": Tree(
        "work_dirs/rcnn",
        """work_dirs/rcnn/epoch_{1..4}.pth work_dirs/rcnn/best_coco_bbox_mAP_epoch_2.pth work_dirs/rcnn/rcnn.py
        work_dirs/rcnn/last_checkpoint=/home/me/work_dirs/rcnn/epoch_3.pth work_dirs/rcnn/20240101_120000/vis_data/config.py
        work_dirs/rcnn/20240101_120000.py work_dirs/rcnn/20240101_120000.log.json work_dirs/rcnn/eval""",
        ["mmengine"],
        "epoch_1.pth epoch_2.pth",
        "epoch_3.pth epoch_4.pth best_coco_bbox_mAP_epoch_2.pth",
        unread="eval",
    ),
    "mmengine: by iteration, with the metrics of its log": Tree(
        "work_dirs/seg",
        r"""work_dirs/seg/iter_{1000,2000,3000}.pth
        work_dirs/seg/20240101_120000/vis_data/scalars.json={"mIoU":50,"step":1000}\n{"mIoU":40,"step":2000}\n{"mIoU":45,"step":3000}""",
        ["mmengine"],
        "iter_2000.pth",
        "iter_1000.pth iter_3000.pth",
        keep="keep_best: {metric: mIoU, mode: max, count: 1}",
    ),
    "detectron2: the best by metrics.json": Tree(
        "output",
        r"""output/model_{0004999,0009999,0014999,final}.pth output/last_checkpoint=model_final.pth
        output/metrics.json={"iteration":4999,"bbox/AP":41.5}\n{"iteration":9999,"bbox/AP":40.1}\n{"iteration":14999,"bbox/AP":40.2}""",
        ["detectron2"],
        "model_0009999.pth model_0014999.pth",
        "model_0004999.pth model_final.pth",
        keep="keep_best: {metric: bbox/AP, mode: max, count: 1}",
    ),
    "megatron: the iteration in the tracker stays": Tree(
        "gpt",
        """gpt/iter_0000{100,200,300}/metadata.json gpt/iter_0000400/common.pt gpt/release/mp_rank_00/model_optim_rng.pt
        gpt/latest_checkpointed_iteration.txt=200 gpt/iter_0000300_bak/metadata.json""",
        ["megatron"],
        "iter_0000100",
        "iter_0000200 iter_0000300 release",
        unread="iter_0000300_bak",
        unwhole="iter_0000400",
    ),
    "deepspeed: the tag in latest stays, a universal one is a series of its own": Tree(
        "ds",
        """ds/global_step{100,200,300,300_universal}/mp_rank_00_model_states.pt ds/global_step400/x ds/latest=global_step200
        ds/zero_to_fp32.py""",
        ["deepspeed"],
        "global_step100",
        "global_step200 global_step300 global_step300_universal",
        unwhole="global_step400",
    ),
    "torchtitan: an unfinished step makes no whole one go": Tree(
        "outputs/checkpoint",
        """outputs/checkpoint/step-{100,200}/.metadata outputs/checkpoint/step-300/__0_0.distcp
        outputs/checkpoint/old-step-100/.metadata""",
        ["torchtitan"],
        "step-100",
        "step-200",
        unread="old-step-100",
        unwhole="step-300",
    ),
    "torchtune: epochs": Tree(
        "llama",
        """llama/epoch_{0..2}/model-0000{1,2}-of-00002.safetensors llama/epoch_1_old/x llama/recipe_state/recipe_state.pt""",
        ["torchtune"],
        "epoch_0 epoch_1",
        "epoch_2",
        unread="epoch_1_old",
    ),
    "torchtune: the files of an epoch are one checkpoint": Tree(
        "llama",
        "llama/hf_model_000{1,2}_{0,1}.pt llama/adapter_{0,1}.pt llama/hf_model_0001_2.pt llama/adapter_2.pt",
        ["torchtune"],
        "hf_model_0001_0.pt hf_model_0002_0.pt adapter_0.pt",
        "hf_model_0001_1.pt hf_model_0002_1.pt adapter_1.pt",
        unwhole="hf_model_0001_2.pt adapter_2.pt",
    ),
    "fairseq: all shards or none; updates are a series with their epoch": Tree(
        "wmt",
        """wmt/checkpoint{1..3}-shard{0,1}.pt wmt/checkpoint4-shard0.pt wmt/checkpoint_last-shard{0,1}.pt
        wmt/checkpoint.best_loss_4.1201-shard{0,1}.pt wmt/checkpoint_best-shard{0,1}.pt""",
        ["fairseq"],
        "checkpoint1-shard0.pt checkpoint1-shard1.pt checkpoint2-shard0.pt checkpoint2-shard1.pt",
        """checkpoint3-shard0.pt checkpoint3-shard1.pt checkpoint_last-shard0.pt checkpoint_last-shard1.pt
        checkpoint.best_loss_4.1201-shard0.pt checkpoint.best_loss_4.1201-shard1.pt
        checkpoint_best-shard0.pt checkpoint_best-shard1.pt""",
        unwhole="checkpoint4-shard0.pt",
    ),
    "composer: the files of all ranks, and what the link leads to": Tree(
        "run/checkpoints",
        """run/checkpoints/ep0-ba{10,20,30,40}-rank{0,1}.pt run/checkpoints/ep0-ba50-rank0.pt
        run/checkpoints/latest-rank0.pt->ep0-ba20-rank0.pt run/checkpoints/latest-rank1.pt->ep0-ba20-rank1.pt""",
        ["composer"],
        "ep0-ba10-rank0.pt ep0-ba10-rank1.pt ep0-ba30-rank0.pt ep0-ba30-rank1.pt",
        "ep0-ba20-rank0.pt ep0-ba20-rank1.pt ep0-ba40-rank0.pt ep0-ba40-rank1.pt",
        unwhole="ep0-ba50-rank0.pt",
    ),
    "composer: the texts that stand for links in a bucket, when they were copied from there": Tree(
        "run/checkpoints",
        """run/checkpoints/ep0-ba{10,20,30}-rank{0,1}.pt run/checkpoints/latest-rank0.pt.symlink=run/checkpoints/ep0-ba20-rank0.pt""",
        ["composer"],
        "ep0-ba10-rank0.pt ep0-ba10-rank1.pt",
        "ep0-ba20-rank0.pt ep0-ba20-rank1.pt ep0-ba30-rank0.pt ep0-ba30-rank1.pt",
    ),
    "composer: sharded": Tree(
        "run/checkpoints",
        "run/checkpoints/ep0-ba{10,20}/{.metadata,__0_0.distcp} run/checkpoints/ep0-ba30/__0_0.distcp",
        ["composer"],
        "ep0-ba10",
        "ep0-ba20",
        unwhole="ep0-ba30",
    ),
    "ultralytics: results.csv counts from 1": Tree(
        "runs/detect/train/weights",
        r"""runs/detect/train/weights/{epoch0,epoch10,epoch20,last,best}.pt runs/detect/train/args.yaml
        runs/detect/train/results.csv=epoch,time,mAP\n1,1,0.9\n2,2,0.1\n11,3,0.4\n21,4,0.5\n""",
        ["ultralytics"],
        "epoch10.pt epoch20.pt",
        "epoch0.pt last.pt best.pt",
        keep="keep_best: {metric: mAP, mode: max, count: 1}",
    ),
    "ultralytics: results.csv of YOLOv5 counts from 0, as names do": Tree(
        "runs/train/exp/weights",
        r"""runs/train/exp/weights/{epoch0,epoch10,epoch20,last,best}.pt runs/train/exp/opt.yaml
        runs/train/exp/results.csv=epoch,mAP\n0,0.5\n10,0.9\n11,0.1\n20,0.2\n21,0.6""",
        ["ultralytics"],
        "epoch0.pt epoch20.pt",
        "epoch10.pt last.pt best.pt",
        keep="keep_best: {metric: mAP, mode: max, count: 1}",
    ),
    "ultralytics: YOLOv6": Tree(
        "runs/train/exp/weights",
        "runs/train/exp/weights/{290,291,last,best,best_stop_aug}_ckpt.pt runs/train/exp/args.yaml",
        ["ultralytics"],
        "290_ckpt.pt",
        "291_ckpt.pt last_ckpt.pt best_ckpt.pt best_stop_aug_ckpt.pt",
    ),
    "timm: recoveries are a series of their own": Tree(
        "output/train/vit",
        r"""output/train/vit/checkpoint-{0..2}.pth.tar output/train/vit/{last,model_best,milestone-2,tmp}.pth.tar
        output/train/vit/recovery-2-{100,200}.pth.tar output/train/vit/args.yaml
        output/train/vit/summary.csv=epoch,eval_top1\n0,70.5\n1,60.5\n2,65.5\n""",
        ["timm"],
        "checkpoint-1.pth.tar recovery-2-100.pth.tar",
        """checkpoint-0.pth.tar checkpoint-2.pth.tar last.pth.tar milestone-2.pth.tar model_best.pth.tar
        recovery-2-200.pth.tar""",
        keep="keep_best: {metric: eval_top1, mode: max, count: 1}",
    ),
    "keras: by names alone": Tree(
        "unet",
        """unet/weights.01-0.88.hdf5 unet/weights.02-0.77.hdf5 unet/weights.10-0.66.hdf5 unet/unet_best.h5 unet/unet.h5
        unet/training.log unet/logs/train/events.out.tfevents.17 unet/final.zip unet/epoch_3_old/x""",
        ["keras"],
        "weights.01-0.88.hdf5 weights.02-0.77.hdf5",
        "weights.10-0.66.hdf5 unet_best.h5",
        unread="unet.h5 final.zip epoch_3_old",
    ),
    "tensorflow: a stem is one checkpoint, and those that the list names stay": Tree(
        "model_dir",
        r"""model_dir/model.ckpt-{1,200,300,400}.{index,meta,data-00000-of-00001} model_dir/model.ckpt-500.data-00000-of-00001
        model_dir/checkpoint=model_checkpoint_path:\ "model.ckpt-300"\nall_model_checkpoint_paths:\ "model.ckpt-200"\n
        model_dir/graph.pbtxt model_dir/eval/events.out.tfevents.1""",
        ["tensorflow"],
        "model.ckpt-1.index model.ckpt-1.meta model.ckpt-1.data-00000-of-00001",
        """model.ckpt-200.index model.ckpt-200.meta model.ckpt-200.data-00000-of-00001
        model.ckpt-300.index model.ckpt-300.meta model.ckpt-300.data-00000-of-00001
        model.ckpt-400.index model.ckpt-400.meta model.ckpt-400.data-00000-of-00001""",
        unwhole="model.ckpt-500.data-00000-of-00001",
    ),
    "orbax: digits alone are whole only with what Orbax writes": Tree(
        "jax",
        """jax/{100,200}/_CHECKPOINT_METADATA jax/2024/photo.png jax/300.orbax-checkpoint-tmp-17/x""",
        ["orbax"],
        "100",
        "200",
        unwhole="2024",
    ),
    "orbax: the best by what a CheckpointManager is told": Tree(
        "jax",
        """jax/{0,10,20}/_CHECKPOINT_METADATA jax/0/metrics/metrics={"loss":0.5} jax/10/metrics/metrics={"loss":0.1}
        jax/20/metrics/metrics={"loss":0.3}""",
        ["orbax"],
        "0",
        "10 20",
        keep="keep_best: {metric: loss, mode: min, count: 1}",
    ),
    "orbax: lerobot": Tree(
        "act/checkpoints",
        "act/checkpoints/{020000,040000}/pretrained_model/model.safetensors act/checkpoints/last->040000",
        ["orbax"],
        "020000",
        "040000",
    ),
}


@every_in_a_folder(TREES)
def test_a_tree_of_the_framework_is_pruned_as_its_pack_says(outputs: Path, tree: Tree) -> None:
    check(outputs, tree)


def test_every_tree_is_of_a_pack() -> None:
    assert {name.partition(":")[0] for name in TREES} <= set(sources())


def test_a_file_under_two_names_is_known_as_one(tmp_path: Path) -> None:
    """Where it can, timm links last, checkpoint-N and model_best: deleting one of these frees nothing."""
    tree = Tree("vit", "vit/checkpoint-{0,1}.pth.tar vit/last.pth.tar", ["timm"], "", "")
    make(tmp_path, tree.files)
    os.link(tmp_path / "vit/checkpoint-0.pth.tar", tmp_path / "vit/model_best.pth.tar")
    _, plan = planned(tmp_path, tree)
    assert [action.name for action in plan.actions] == ["checkpoint-0.pth.tar"]
    entries = scan(str(tmp_path), Directory("x", "vit")).entries
    assert {entry.name: entry.shared[0].names for entry in entries if entry.shared} == {
        "checkpoint-0.pth.tar": 2,
        "model_best.pth.tar": 2,
    }
