"""A small tree of each framework, all packs loaded: which packs are picked, and what goes where the last one is kept."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Directory
from ckptrules.engine.names.packs import with_packs
from ckptrules.engine.plan import make_plan
from ckptrules.engine.ruleset import RuleSet
from ckptrules.outputs.evidence import look_inside
from ckptrules.outputs.facts import all_facts
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import Tree as Looked
from ckptrules.outputs.picking import pick_in
from ckptrules.outputs.pointers import read_pointers
from ckptrules.outputs.scouting import scout
from ckptrules.rules.packs import sources
from ckptrules.storage.reading import open_below
from tests.support.forking import shared_rules
from tests.support.tables import every_in_a_folder

PACKS = ", ".join(sources())
CONTENT = re.compile(
    r"(?:\.(?:json|jsonl|yaml|csv|txt|symlink)|/(?:last_checkpoint(?:\.rank_\d)?|latest|checkpoint|metrics))=(.*)"
)
POLICY = "retention: {default: {%s, keep_at_least: 1}}"


class Tree(NamedTuple):
    """Files of one checkpoint directory and around it, and what must come of them.

    A path may end in ``->TEXT`` (a link) or ``=TEXT`` (its content); without, a file holds a few bytes. ``{1..3}`` and
    ``{a,b}`` stand for several. ``goes`` and ``stays`` are all checkpoints; ``unwhole`` and ``unread`` are left alone.
    """

    directory: str
    files: str
    packs: Sequence[str]
    goes: str
    stays: str
    unread: str = ""
    unwhole: str = ""
    keep: str = "keep_last: 1"


TREES = {
    "huggingface: a folder that lacks a shard of its weights makes no other go": Tree(
        "run",
        """run/checkpoint-{100,200,300}/trainer_state.json={"log_history":[]} run/checkpoint-{100,200}/model-0000{1,2}-of-00002.safetensors
        run/checkpoint-300/model-00001-of-00002.safetensors""",
        ["huggingface"],
        "checkpoint-100",
        "checkpoint-200",
        unwhole="checkpoint-300",
    ),
    "words: step folders of plain files are not torn ones of accelerate": Tree(
        "run", "run/step_{1,2,3}/{weights,optimizer}.pt", ["words"], "step_1 step_2", "step_3"
    ),
    "words: a folder without the optimizer that those before have was cut short, and makes none go": Tree(
        "run",
        "run/global_step_{100,200,300}/{task,optimizer}.ckpt run/global_step_400/task.ckpt",
        ["words"],
        "global_step_100",
        "global_step_200 global_step_300",
        unwhole="global_step_400",
    ),
    "words: what is called one of the best stays, wherever the word stands": Tree(
        "run/models",
        """run/models/model_epoch_50.pth run/models/model_epoch_20_best_validation_0.1.pth run/models/model_epoch_100.pth
        run/models/best-model-epoch-3.pt""",
        ["words"],
        "model_epoch_50.pth",
        "model_epoch_20_best_validation_0.1.pth model_epoch_100.pth best-model-epoch-3.pt",
    ),
    "orbax: the files of a step of EasyLM are one checkpoint, and those without a number the newest": Tree(
        "run",
        """run/{streaming_train_state,streaming_params}_{1000,2000,3000} run/{metadata,dataset}_{1000,2000}.pkl run/metadata_3000.pkl
        run/streaming_train_state run/metadata.pkl run/dataset.pkl""",
        ["orbax"],
        "streaming_train_state_1000 streaming_params_1000 metadata_1000.pkl dataset_1000.pkl",
        "streaming_train_state_2000 streaming_params_2000 metadata_2000.pkl dataset_2000.pkl streaming_train_state",
        unwhole="streaming_train_state_3000 streaming_params_3000 metadata_3000.pkl",
    ),
    "orbax: a file of Flax does not go without the arrays that other processes wrote beside it": Tree(
        "run",
        """run/checkpoint_{1000,2000} run/checkpoint_{1000,2000}_gda/w/.zarray run/checkpoint_3000/_CHECKPOINT_METADATA run/checkpoint_tmp
        run/checkpoint_4000.tmp-1681/w""",
        ["orbax"],
        "",
        "checkpoint_1000 checkpoint_2000 checkpoint_3000",
        unread="checkpoint_1000_gda checkpoint_2000_gda",
    ),
    "words: the tracker of Megatron, though the names are none of it": Tree(
        "ckpt",
        "ckpt/global_step_{20,40,60}/model.pt ckpt/latest_checkpointed_iteration.txt=40",
        ["words"],
        "global_step_20",
        "global_step_40 global_step_60",
    ),
    "timm: what several programs saved in one folder makes none of the others go": Tree(
        "x/checkpoints",
        r"""x/checkpoints/epoch_{10,20}.pth x/checkpoints/checkpoint-{7,8}.pth.tar x/checkpoints/epoch={1,2}-step=9.ckpt
        x/checkpoints/last_checkpoint=epoch_20.pth x/checkpoints/summary.csv=epoch,loss\n x/hparams.yaml""",
        ["lightning", "mmengine", "timm"],
        "epoch_10.pth checkpoint-7.pth.tar epoch=1-step=9.ckpt",
        "epoch_20.pth checkpoint-8.pth.tar epoch=2-step=9.ckpt",
    ),
    "words: who was killed between the two networks of a GAN leaves a pair before": Tree(
        "dcgan",
        "dcgan/net{G,D}_epoch_{1..4}.pth dcgan/netG_epoch_5.pth",
        ["words"],
        "netG_epoch_1.pth netD_epoch_1.pth netG_epoch_2.pth netD_epoch_2.pth",
        "netG_epoch_3.pth netD_epoch_3.pth netG_epoch_4.pth netD_epoch_4.pth",
        unwhole="netG_epoch_5.pth",
    ),
    "words: what shows that a pair is torn stays, also where no line keeps it": Tree(
        "dcgan",
        "dcgan/net{G,D}_epoch_{1..4}.pth dcgan/netG_epoch_5.pth dcgan/best.pth",
        ["words"],
        "netG_epoch_1.pth netD_epoch_1.pth netG_epoch_2.pth netD_epoch_2.pth",
        "netG_epoch_3.pth netD_epoch_3.pth netG_epoch_4.pth netD_epoch_4.pth best.pth",
        unwhole="netG_epoch_5.pth",
        keep="keep: protected",
    ),
    "kohya: who was killed between weights and state leaves a pair before": Tree(
        "lora",
        "lora/cat-00000{2,4,6,8}.safetensors lora/cat-00000{2,4,6}-state/{train_state.json,optimizer.bin,model.safetensors}",
        ["kohya"],
        "cat-000002.safetensors cat-000002-state",
        "cat-000004.safetensors cat-000004-state cat-000006.safetensors cat-000006-state",
        unwhole="cat-000008.safetensors",
    ),
    "words: parameters do not stand for the state of their optimizer": Tree(
        "jax",
        "jax/{params,opt_state}_epoch_{1..3}.pkl jax/params_epoch_4.pkl",
        ["words"],
        "params_epoch_1.pkl opt_state_epoch_1.pkl",
        "params_epoch_2.pkl opt_state_epoch_2.pkl params_epoch_3.pkl opt_state_epoch_3.pkl",
        unwhole="params_epoch_4.pkl",
    ),
    "words: a network that is saved more often is whole without the other, and the last of both stays": Tree(
        "gan",
        "gan/netG_epoch_{1..5}.pth gan/netD_epoch_{2,4}.pth gan/bert_epoch_{1..4}.pth gan/t5_epoch_{1..3}.pth",
        ["words"],
        """netG_epoch_1.pth netG_epoch_2.pth netG_epoch_3.pth netD_epoch_2.pth
        bert_epoch_1.pth bert_epoch_2.pth bert_epoch_3.pth t5_epoch_1.pth t5_epoch_2.pth""",
        "netG_epoch_5.pth netG_epoch_4.pth netD_epoch_4.pth bert_epoch_4.pth t5_epoch_3.pth",
    ),
    "words: weights alone do not stand for what was saved with them": Tree(
        "vae",
        "vae/epoch_{1..3}.pt vae/epoch_{1..4}.safetensors",
        ["words"],
        "epoch_1.pt epoch_1.safetensors",
        "epoch_2.pt epoch_2.safetensors epoch_3.pt epoch_3.safetensors",
        unwhole="epoch_4.safetensors",
    ),
    "megatron: the last rank of a save is missing": Tree(
        "ck",
        "ck/iter_0000{100,200,300}/mp_rank_0{0,1}/model_optim_rng.pt ck/iter_0000400/mp_rank_00/model_optim_rng.pt",
        ["megatron"],
        "iter_0000100",
        "iter_0000200 iter_0000300",
        unwhole="iter_0000400",
    ),
    "megatron: the tracker of DeepSpeed": Tree(
        "ck",
        "ck/iter_0000{100,200,300}/mp_rank_00/model_optim_rng.pt ck/latest=iter_0000200",
        ["megatron"],
        "iter_0000100",
        "iter_0000200 iter_0000300",
    ),
    "words: what its latest.txt names": Tree(
        "ck",
        "ck/step_{100,200,300}.pt ck/latest.txt=step_200.pt",
        ["words"],
        "step_100.pt",
        "step_200.pt step_300.pt",
    ),
    "words: the number in its best_epoch.txt": Tree(
        "ck",
        "ck/epoch_{1..4}.pt ck/best_epoch.txt=2 ck/last_epoch.txt=epoch_3.pt",
        ["words"],
        "epoch_1.pt",
        "epoch_2.pt epoch_3.pt epoch_4.pt",
    ),
    "words: what its best.json tells": Tree(
        "ck",
        'ck/epoch_{1..4}.pt ck/best.json={"epoch":2,"loss":0.25}',
        ["words"],
        "epoch_1.pt epoch_3.pt",
        "epoch_2.pt epoch_4.pt",
    ),
    "words: what its checkpoint.json and state.json name": Tree(
        "ck",
        """ck/epoch_{1..4}.pt ck/checkpoint.json={"resume":"./epoch_2.pt","loss":0.25}
        ck/state.json={"latest_checkpoint":"epoch_3.pt"}""",
        ["words"],
        "epoch_1.pt",
        "epoch_2.pt epoch_3.pt epoch_4.pt",
    ),
    "words: YOLOv7, whose best ones have a number": Tree(
        "runs/train/exp/weights",
        "runs/train/exp/weights/{epoch_000,epoch_024,epoch_049,best_046,init,last,best}.pt runs/train/exp/opt.yaml",
        ["words"],
        "epoch_000.pt epoch_024.pt",
        "epoch_049.pt best_046.pt last.pt best.pt",
    ),
    "words: a folder of shards without .metadata is torn": Tree(
        "ck",
        "ck/it{1,2}/{.metadata,__0_0.distcp} ck/it3/__0_0.distcp",
        ["words"],
        "it1",
        "it2",
        unwhole="it3",
    ),
    "words: folders of torch.distributed.checkpoint by any program": Tree(
        "ck",
        """ck/step_{100,200,300,400}/{.metadata,__0_0.distcp} ck/step_500/__0_0.distcp ck/checkpoint_{3,4}/{.metadata,__0_0.distcp}
        ck/latest=step_200""",
        ["words"],
        "step_100 step_300 checkpoint_3",
        "step_200 step_400 checkpoint_4",
        unwhole="step_500",
    ),
    "words: LitGPT": Tree(
        "out",
        "out/step-0000{1000,2000}/lit_model.pth out/step-00003000/lit_config.json out/final/lit_model.pth",
        ["words"],
        "step-00001000",
        "step-00002000",
        unwhole="step-00003000",
    ),
    "words: fairseq2": Tree(
        "run/checkpoints",
        """run/checkpoints/step_{10,20}/model/pp_00/tp_00/sdp_00.pt run/checkpoints/step_{10,20}/trainer/rank_00.pt
        run/checkpoints/step_30.tmp/model/pp_00/tp_00/sdp_00.pt""",
        ["words"],
        "step_10",
        "step_20",
    ),
    "words: the best by what NeMo-RL tells": Tree(
        "grpo",
        """grpo/step_{10,20,30}/policy/weights/{.metadata,__0_0.distcp} grpo/step_10/training_info.json={"val_reward":0.9}
        grpo/step_20/training_info.json={"val_reward":0.1} grpo/step_30/training_info.json={"val_reward":0.5}
        grpo/tmp_step_40/policy/x""",
        ["words"],
        "step_20",
        "step_10 step_30",
        unread="tmp_step_40",
        keep="keep_best: {metric: val_reward, mode: max, count: 1}",
    ),
    "words: prime-rl": Tree(
        "rl/checkpoints",
        """rl/checkpoints/step_{10,20}/trainer/{.metadata,__0_0.distcp,__1_0.distcp} rl/checkpoints/step_10/STABLE
        rl/checkpoints/step_{10,20}/weight/{model.safetensors,config.json} rl/checkpoints/step_30/trainer/dataloader.json""",
        ["words"],
        "step_10",
        "step_20",
        unwhole="step_30",
    ),
    "words: a folder of verl that lacks a rank makes no other go, and what its tracker names stays": Tree(
        "grpo",
        """grpo/latest_checkpointed_iteration.txt=100 grpo/global_step_{100,200,300,400}/data.pt
        grpo/global_step_{100,200,300,400}/actor/{model,optim,extra_state}_world_size_2_rank_0.pt
        grpo/global_step_{100,200,300}/actor/{model,optim,extra_state}_world_size_2_rank_1.pt
        grpo/global_step_{100,200,300,400}/actor/huggingface/{config.json,tokenizer.json}""",
        ["words"],
        "global_step_200",
        "global_step_100 global_step_300",
        unwhole="global_step_400",
    ),
    "nanochat: the files of a step go together": Tree(
        "base_checkpoints/d20",
        """base_checkpoints/d20/model_000{100,200,300}.pt base_checkpoints/d20/meta_000100.json={"step":100,"val_bpb":0.9}
        base_checkpoints/d20/meta_000200.json={"step":200,"val_bpb":0.7} base_checkpoints/d20/meta_000300.json={"step":300,"val_bpb":0.8}
        base_checkpoints/d20/optim_000{100,200,300}_rank{0,1}.pt base_checkpoints/d20/model_000400.pt base_checkpoints/d20/meta_000400.json={}
        base_checkpoints/d20/optim_000400_rank0.pt""",
        ["nanochat"],
        "model_000100.pt meta_000100.json optim_000100_rank0.pt optim_000100_rank1.pt",
        "model_000200.pt meta_000200.json optim_000200_rank0.pt optim_000200_rank1.pt model_000300.pt meta_000300.json"
        " optim_000300_rank0.pt optim_000300_rank1.pt",
        unwhole="meta_000400.json model_000400.pt optim_000400_rank0.pt",
        keep="keep_last: 1, keep_best: {metric: val_bpb, mode: min, count: 1}",
    ),
    "rsl_rl: numbers of few digits may be folds": Tree(
        "rsl_rl/anymal",
        """rsl_rl/anymal/model_{0,50,100,149}.pt rsl_rl/anymal/params/{env.yaml,agent.yaml} rsl_rl/anymal/git/IsaacLab.diff
        rsl_rl/anymal/exported/policy.pt rsl_rl/anymal/events.out.tfevents.1""",
        ["rsl_rl"],
        "model_100.pt",
        "model_149.pt",
        unread="model_0.pt model_50.pt",
    ),
    "sb3: in Isaac Lab, whose parameters lie beside": Tree(
        "sb3/cartpole",
        "sb3/cartpole/model_{1000,2000}_steps.zip sb3/cartpole/params/agent.yaml sb3/cartpole/model.zip sb3/cartpole/best_model.zip",
        ["sb3"],
        "model_1000_steps.zip",
        "model_2000_steps.zip best_model.zip",
        unread="model.zip",
    ),
    "rsl_rl: F5-TTS, whose last one stays, and what it began with": Tree(
        "ckpts/f5",
        "ckpts/f5/model_{1000,2000,3000}.pt ckpts/f5/model_last.pt ckpts/f5/pretrained_model_1250000.safetensors ckpts/f5/samples/a.wav",
        ["rsl_rl"],
        "model_1000.pt model_2000.pt",
        "model_3000.pt model_last.pt pretrained_model_1250000.safetensors",
    ),
    "onetrainer: backups, of which one is not finished": Tree(
        "ws/backup",
        """ws/backup/2025-01-01_09-00-00-backup-500-0-5/lora.safetensors ws/backup/2025-01-01_09-00-00-backup-500-0-5/onetrainer_config/args.json
        ws/backup/2025-01-0{1,2}_10-00-00-backup-1000-1-0/lora.safetensors
        ws/backup/2025-01-0{1,2}_10-00-00-backup-1000-1-0/onetrainer_config/args.json
        ws/backup/2025-01-02_11-00-00-backup-2000-2-0/lora.safetensors""",
        ["onetrainer"],
        "2025-01-01_09-00-00-backup-500-0-5",
        "2025-01-01_10-00-00-backup-1000-1-0 2025-01-02_10-00-00-backup-1000-1-0",
        unwhole="2025-01-02_11-00-00-backup-2000-2-0",
    ),
    "onetrainer: models": Tree(
        "ws/save",
        "ws/save/2025-01-01_1{0,1}-00-00-save-1000-1-0.safetensors ws/save/cat2025-01-01_12-00-00-save-500-1-0.safetensors",
        ["onetrainer"],
        "",
        "2025-01-01_10-00-00-save-1000-1-0.safetensors 2025-01-01_11-00-00-save-1000-1-0.safetensors"
        " cat2025-01-01_12-00-00-save-500-1-0.safetensors",
    ),
    "levanter: an unfinished step makes no whole one go": Tree(
        "checkpoints/run",
        """checkpoints/run/step-{1000,2000}/metadata.json={"is_temporary":false} checkpoints/run/step-{1000,2000,3000}/model/w/{.zarray,0.0}
        checkpoints/run/eval-1000/x""",
        ["levanter"],
        "step-1000",
        "step-2000",
        unwhole="step-3000",
    ),
    "deepspeed: the best of OpenRLHF": Tree(
        "ckpt/_actor",
        """ckpt/_actor/latest=global_step30 ckpt/_actor/{best_global_step20,global_step10,global_step20,global_step30}/mp_rank_00_model_states.pt
        ckpt/_actor/{best_global_step20,global_step10,global_step20,global_step30}/metric.json={}""",
        ["deepspeed"],
        "global_step10 global_step20",
        "global_step30 best_global_step20",
    ),
    "words: lingua": Tree(
        "dump/checkpoints",
        """dump/checkpoints/000000{1000,2000}/{.metadata,__0_0.distcp,params.json,train_state_00000.json}
        dump/checkpoints/0000003000/__0_0.distcp""",
        ["words"],
        "0000001000",
        "0000002000",
        unwhole="0000003000",
    ),
    "words: numbers of unknown unit, but for what may be a fold or a rank": Tree(
        "out",
        "out/ckpt_{1,2,1000,2000,3000}.pt out/latest.txt=ckpt_2000.pt out/checkpoint-{100,400}steps.pkl",
        ["words"],
        "ckpt_1000.pt checkpoint-100steps.pkl",
        "ckpt_2000.pt ckpt_3000.pt checkpoint-400steps.pkl",
        unread="ckpt_1.pt ckpt_2.pt",
    ),
    "words: what is told of the best is no checkpoint that remains": Tree(
        "ck",
        """ck/epoch_{1..4}.pt ck/best_metrics.json={} ck/best_params.yaml=a ck/best_roc.png ck/last.txt
        ck/best_samples/{1,2}.png ck/best_samples/of/3.png""",
        ["words"],
        "epoch_1.pt epoch_2.pt epoch_3.pt",
        "epoch_4.pt",
        keep="min_epoch: 10",
    ),
    "sb3: a policy goes with its buffer and its normaliser": Tree(
        "logs/ppo",
        """logs/ppo/rl_model_{1000,2000}_steps.zip logs/ppo/rl_model_replay_buffer_{1000,2000}_steps.pkl
        logs/ppo/rl_model_vecnormalize_{1000,2000}_steps.pkl logs/ppo/best_model.zip logs/ppo/evaluations.npz""",
        ["sb3"],
        "rl_model_1000_steps.zip rl_model_replay_buffer_1000_steps.pkl rl_model_vecnormalize_1000_steps.pkl",
        """rl_model_2000_steps.zip rl_model_replay_buffer_2000_steps.pkl rl_model_vecnormalize_2000_steps.pkl
        best_model.zip""",
    ),
    "sb3: a policy whose normaliser was not saved makes no other go": Tree(
        "logs/ppo",
        "logs/ppo/rl_model_{1000,2000,3000}_steps.zip logs/ppo/rl_model_vecnormalize_{1000,2000}_steps.pkl",
        ["sb3"],
        "rl_model_1000_steps.zip rl_model_vecnormalize_1000_steps.pkl",
        "rl_model_2000_steps.zip rl_model_vecnormalize_2000_steps.pkl",
        unwhole="rl_model_3000_steps.zip",
    ),
    "ray: a folder a report": Tree(
        "PPO_exp/trial_0",
        """PPO_exp/experiment_state-2025-01-01.json PPO_exp/trial_0/checkpoint_{000000,000001,000002}/rllib_checkpoint.json
        PPO_exp/trial_0/result.json PPO_exp/trial_0/params.json""",
        ["ray"],
        "checkpoint_000000 checkpoint_000001",
        "checkpoint_000002",
    ),
    "ray: the best by result.json": Tree(
        "PPO_exp/trial_0",
        r"""PPO_exp/trial_0/checkpoint_{000000,000001,000002}/rllib_checkpoint.json
        PPO_exp/trial_0/result.json={"checkpoint_dir_name":"checkpoint_000000","reward":9}\n{"checkpoint_dir_name":"checkpoint_000001","reward":2}\n{"checkpoint_dir_name":"checkpoint_000002","reward":3}\n""",
        ["ray"],
        "checkpoint_000001",
        "checkpoint_000000 checkpoint_000002",
        keep="keep_best: {metric: reward, mode: max, count: 1}",
    ),
    "ray: what the snapshot of a run names stays, or the run would not resume": Tree(
        "exp",
        """exp/checkpoint_2025-05-0{1,2,3}_10-00-00.123456/model.pt
        exp/checkpoint_manager_snapshot.json={"checkpoint_results":[{"checkpoint_dir_name":"checkpoint_2025-05-02_10-00-00.123456","metrics":{"loss":1}}]}""",
        ["ray"],
        "checkpoint_2025-05-01_10-00-00.123456",
        "checkpoint_2025-05-02_10-00-00.123456 checkpoint_2025-05-03_10-00-00.123456",
        keep="keep_hourly: 1",
    ),
    "espnet: links hold what they lead to": Tree(
        "exp/asr",
        """exp/asr/{1..4}epoch.pth exp/asr/checkpoint.pth exp/asr/latest.pth->4epoch.pth exp/asr/valid.acc.best.pth->2epoch.pth
        exp/asr/valid.acc.ave_10best.pth exp/asr/config.yaml exp/asr/train.log""",
        ["espnet"],
        "1epoch.pth 3epoch.pth",
        "2epoch.pth 4epoch.pth checkpoint.pth valid.acc.ave_10best.pth",
    ),
    "icefall: epochs and batches are two series, an average is none of them": Tree(
        "zipformer/exp",
        """zipformer/exp/epoch-{1..3}.pt zipformer/exp/checkpoint-{4000,8000}.pt zipformer/exp/best-valid-loss.pt
        zipformer/exp/pretrained-epoch-30-avg-10.pt zipformer/exp/checkpoint-8000-1.pt""",
        ["icefall"],
        "epoch-1.pt epoch-2.pt checkpoint-4000.pt",
        "epoch-3.pt checkpoint-8000.pt best-valid-loss.pt pretrained-epoch-30-avg-10.pt",
        unread="checkpoint-8000-1.pt",
    ),
    "speechbrain: the best and the newest, by what stands inside": Tree(
        "asr/1986/save",
        r"""asr/1986/save/CKPT+2024-01-02+03-04-05+00/CKPT.yaml=unixtime:\ 300\nWER:\ 9.5\n
        asr/1986/save/CKPT+2024-01-02+03-04-06+00/CKPT.yaml=unixtime:\ 100\nWER:\ 2.5\n
        asr/1986/save/CKPT+2024-01-02+03-04-07+00/CKPT.yaml=unixtime:\ 200\nWER:\ 5.5\n
        asr/1986/save/CKPT+2024-01-02+03-04-08+00/model.ckpt""",
        ["speechbrain"],
        "CKPT+2024-01-02+03-04-07+00",
        "CKPT+2024-01-02+03-04-05+00 CKPT+2024-01-02+03-04-06+00",
        unwhole="CKPT+2024-01-02+03-04-08+00",
        keep="keep_best: {metric: WER, mode: min, count: 1}",
    ),
    "speechbrain: the newest by the times in the names; those of one second stay together": Tree(
        "asr/1986/save",
        r"""asr/1986/save/CKPT+2024-01-02+03-04-05+00/CKPT.yaml=unixtime:\ 100\n
        asr/1986/save/CKPT+2024-01-02+23-59-59+00/CKPT.yaml=unixtime:\ 200\n
        asr/1986/save/CKPT+2024-01-03+00-00-00+00/CKPT.yaml=unixtime:\ 300.25\n
        asr/1986/save/CKPT+2024-01-03+00-00-00+01/CKPT.yaml=unixtime:\ 300.75\n""",
        ["speechbrain"],
        "CKPT+2024-01-02+03-04-05+00 CKPT+2024-01-02+23-59-59+00",
        "CKPT+2024-01-03+00-00-00+00 CKPT+2024-01-03+00-00-00+01",
        keep="keep_last: 1",
    ),
    "speechbrain: what a name goes on with is a run": Tree(
        "asr/1986/save",
        """asr/1986/save/CKPT+2024-01-02+00-00-00+00/CKPT.yaml asr/1986/save/CKPT+2024-01-02+0{1,2}-00-00+00_fold_{1,2}/CKPT.yaml
        asr/1986/save/CKPT+2024-01-02+03-00-00+00/CKPT.yaml""",
        ["speechbrain"],
        """CKPT+2024-01-02+01-00-00+00_fold_1 CKPT+2024-01-02+01-00-00+00_fold_2 CKPT+2024-01-02+00-00-00+00""",
        """CKPT+2024-01-02+02-00-00+00_fold_1 CKPT+2024-01-02+02-00-00+00_fold_2 CKPT+2024-01-02+03-00-00+00""",
        keep="keep_last: 1",
    ),
    "coqui: the best stay, and count": Tree(
        "run-May-01-2025",
        """run-May-01-2025/checkpoint_{1000,2000}.pth run-May-01-2025/best_model{,_1500,_2500}.pth
        run-May-01-2025/trainer_0_log.txt run-May-01-2025/config.json""",
        ["coqui"],
        "checkpoint_1000.pth checkpoint_2000.pth",
        "best_model.pth best_model_1500.pth best_model_2500.pth",
    ),
    "vits: a pair goes or stays as one": Tree(
        "logs/44k",
        """logs/44k/{G,D}_{0,1000,2000}.pth logs/44k/G_3000.pth logs/44k/{G,D}_2333333.pth logs/44k/config.json""",
        ["vits"],
        "G_1000.pth D_1000.pth",
        "G_0.pth D_0.pth G_2000.pth D_2000.pth G_2333333.pth D_2333333.pth",
        unwhole="G_3000.pth",
    ),
    "vits: HiFi-GAN": Tree(
        "cp_hifigan",
        "cp_hifigan/{g,do}_{00005000,00010000} cp_hifigan/config.json",
        ["vits"],
        "g_00005000 do_00005000",
        "g_00010000 do_00010000",
    ),
    "vits: a base model is none that remains": Tree(
        "logs/44k",
        "logs/44k/{G,D}_{0,1000,2000}.pth",
        ["vits"],
        "G_1000.pth D_1000.pth",
        "G_0.pth D_0.pth G_2000.pth D_2000.pth",
        keep="keep: protected",
    ),
    "icefall: an average is none that remains": Tree(
        "exp",
        "exp/epoch-{1,2}.pt exp/pretrained-epoch-2-avg-1.pt exp/pretrained.pt exp/log/log-train-1",
        ["icefall"],
        "epoch-1.pt",
        "epoch-2.pt pretrained-epoch-2-avg-1.pt",
        keep="keep: protected",
    ),
    "opennmt: a release is none that remains": Tree(
        "run",
        "run/model_step_{1000,2000}.pt run/model_step_2000_release.pt",
        ["opennmt"],
        "model_step_1000.pt",
        "model_step_2000.pt model_step_2000_release.pt",
        keep="keep: protected",
    ),
    "kohya: a state goes with its weights, and what has no number stays": Tree(
        "lora",
        """lora/cat-{000001,000002}.safetensors lora/cat-{000001,000002}-state/train_state.json lora/cat.safetensors
        lora/dog-step00000200.safetensors lora/dog-step00000400.safetensors""",
        ["kohya"],
        "cat-000001.safetensors cat-000001-state dog-step00000200.safetensors",
        "cat-000002.safetensors cat-000002-state dog-step00000400.safetensors",
        unread="cat.safetensors",
    ),
    "kohya: ai-toolkit": Tree(
        "cat",
        "cat/cat_000000{250,500,750}.safetensors cat/cat_LoRA_000000250.safetensors cat/cat.safetensors cat/config.yaml",
        ["kohya"],
        "cat_000000250.safetensors cat_000000500.safetensors",
        "cat_000000750.safetensors cat_LoRA_000000250.safetensors",
        unread="cat.safetensors",
    ),
    "kohya: beside the shards of a model of Hugging Face, none of which is an epoch": Tree(
        "sft",
        """sft/checkpoint-{500,1000}/trainer_state.json={} sft/model-0000{1,2}-of-00002.safetensors
        sft/cat-000001.safetensors sft/cat-000002.safetensors""",
        ["huggingface"],
        "checkpoint-500",
        "checkpoint-1000",
        unread="cat-000001.safetensors cat-000002.safetensors",
    ),
    "paddle: weights go with their optimizer": Tree(
        "output/ppyoloe",
        """output/ppyoloe/{0,10}.{pdparams,pdopt,pdema} output/ppyoloe/20.pdparams
        output/ppyoloe/{best_model,model_final}.pdparams""",
        ["paddle"],
        "0.pdparams 0.pdopt 0.pdema",
        "10.pdparams 10.pdopt 10.pdema best_model.pdparams model_final.pdparams",
        unwhole="20.pdparams",
    ),
    "paddle: folders of PaddleSeg": Tree(
        "output",
        "output/iter_{1000,2000}/model.{pdparams,pdopt} output/best_model/model.pdparams",
        ["paddle"],
        "iter_1000",
        "iter_2000 best_model",
    ),
    "caffe: weights go with their solver state": Tree(
        "snapshots",
        "snapshots/lenet_iter_{500,1000}.{caffemodel,solverstate} snapshots/lenet_iter_1500.caffemodel",
        ["caffe"],
        "lenet_iter_500.caffemodel lenet_iter_500.solverstate",
        "lenet_iter_1000.caffemodel lenet_iter_1000.solverstate",
        unwhole="lenet_iter_1500.caffemodel",
    ),
    "darknet: each network is a series": Tree(
        "backup",
        "backup/yolo-obj_{1000,2000,last,best}.weights backup/tiny_1000.weights",
        ["darknet"],
        "yolo-obj_1000.weights",
        "yolo-obj_2000.weights yolo-obj_last.weights yolo-obj_best.weights tiny_1000.weights",
    ),
    "ignite: the newest, and what a handler keeps as the best": Tree(
        "exp",
        "exp/checkpoint_{1000,2000}.pt exp/best_model_3_acc=0.9.pt exp/best_model_4_neg_loss=-0.5.pt exp/config-lock.yaml",
        ["ignite"],
        "checkpoint_1000.pt",
        "checkpoint_2000.pt best_model_3_acc=0.9.pt best_model_4_neg_loss=-0.5.pt",
    ),
    "ignite: several objects are several series": Tree(
        "exp",
        "exp/model_{3,4}_acc=0.9.pt exp/ema_model_{2,3}_acc=0.8.pt",
        ["ignite"],
        "ema_model_2_acc=0.8.pt",
        "model_4_acc=0.9.pt model_3_acc=0.9.pt ema_model_3_acc=0.8.pt",  # whether ema_model_4 was to come, nobody knows
    ),
    "opennmt: a release is no checkpoint to resume from": Tree(
        "run",
        "run/model_step_{1000,2000,3000}.pt run/model_step_4000_release.pt run/data.vocab.pt",
        ["opennmt"],
        "model_step_1000.pt model_step_2000.pt",
        "model_step_3000.pt model_step_4000_release.pt",
    ),
    "marian: the newest and the best have no number": Tree(
        "model",
        "model/model.iter{2000,4000}.npz model/model.npz model/model.npz.best-bleu.npz model/model.npz.progress.yml",
        ["marian"],
        "model.iter2000.npz",
        "model.iter4000.npz model.npz model.npz.best-bleu.npz",
    ),
    "rl_games: last_ begins every name": Tree(
        "runs/cart/nn",
        "runs/cart/nn/last_cart_ep_{100,200}_rew_4.5.pth runs/cart/nn/last_cart_ep_300_rew__7.25_.pth runs/cart/nn/cart.pth",
        ["rl_games"],
        "last_cart_ep_100_rew_4.5.pth last_cart_ep_200_rew_4.5.pth",
        "last_cart_ep_300_rew__7.25_.pth",
        unread="cart.pth",
    ),
    "rl_games: the best by the reward in the name": Tree(
        "runs/cart/nn",
        "runs/cart/nn/last_cart_ep_{100_rew_9.5,200_rew_8.5}.pth runs/cart/nn/last_cart_ep_300_rew__-7.25_.pth",
        ["rl_games"],
        "last_cart_ep_200_rew_8.5.pth",
        "last_cart_ep_100_rew_9.5.pth last_cart_ep_300_rew__-7.25_.pth",
        keep="keep_best: {metric: rew, mode: max, count: 1}",
    ),
    "guided_diffusion: three files are one checkpoint": Tree(
        "openai",
        """openai/{model,opt,ema_0.9999_}{010000,020000}.pt openai/{model,ema_0.9999_}030000.pt openai/progress.csv""",
        ["guided_diffusion"],
        "model010000.pt opt010000.pt ema_0.9999_010000.pt",
        "model020000.pt opt020000.pt ema_0.9999_020000.pt",
        unwhole="model030000.pt ema_0.9999_030000.pt",
    ),
    "stylegan: without states": Tree(
        "00000-ffhq",
        "00000-ffhq/network-snapshot-{000000,000200,000400}.pkl 00000-ffhq/training_options.json",
        ["stylegan"],
        "network-snapshot-000000.pkl network-snapshot-000200.pkl",
        "network-snapshot-000400.pkl",
    ),
    "stylegan: where there are states, a snapshot without one makes none go": Tree(
        "00000-edm",
        "00000-edm/network-snapshot-{001000,002000,003000}.pkl 00000-edm/training-state-{001000,002000}.pt",
        ["stylegan"],
        "network-snapshot-001000.pkl training-state-001000.pt",
        "network-snapshot-002000.pkl training-state-002000.pt",
        unwhole="network-snapshot-003000.pkl",
    ),
    "stylegan: of EDM2, each length of EMA for itself": Tree(
        "00000-edm2",
        "00000-edm2/network-snapshot-000{1000,2000}-0.{050,100}.pkl 00000-edm2/training-state-000{1000,2000}.pt",
        ["stylegan"],
        """network-snapshot-0001000-0.050.pkl network-snapshot-0001000-0.100.pkl training-state-0001000.pt""",
        """network-snapshot-0002000-0.050.pkl network-snapshot-0002000-0.100.pkl training-state-0002000.pt""",
    ),
    "catalyst: the best by the storage": Tree(
        "logdir",
        """logdir/model.{0001,0002,0003,last,best}.pth
        logdir/model.storage.json={"storage":[{"logpath":"/x/model.0001.pth","metric":0.5},{"logpath":"/x/model.0002.pth","metric":0.9},{"logpath":"/x/model.0003.pth","metric":0.1}]}""",
        ["catalyst"],
        "model.0001.pth model.0003.pth",
        "model.0002.pth model.last.pth model.best.pth",
        keep="keep_best: {metric: metric, mode: max, count: 1}",
    ),
    "catalyst: weights go with the rest": Tree(
        "logs/checkpoints",
        "logs/checkpoints/train.{1,2}{,_full}.pth logs/checkpoints/{best,last}{,_full}.pth",
        ["catalyst"],
        "train.1.pth train.1_full.pth",
        "train.2.pth train.2_full.pth best.pth last.pth best_full.pth last_full.pth",
    ),
    "fastai: by names alone": Tree(
        "pets/models",
        "pets/models/model_{0..2}.pth pets/models/model.pth pets/models/stage-1.pth",
        ["fastai"],
        "model_0.pth model_1.pth",
        "model_2.pth model.pth",
        unread="stage-1.pth",
    ),
    "allennlp: model and training state are one": Tree(
        "out",
        "out/{model,training}_state_e{1,2}_b0.th out/model_state_e3_b0.th out/best.th out/metrics_epoch_1.json",
        ["allennlp"],
        "model_state_e1_b0.th training_state_e1_b0.th",
        "model_state_e2_b0.th training_state_e2_b0.th best.th",
        unwhole="model_state_e3_b0.th",
    ),
    "olmo: unsharded checkpoints count for themselves": Tree(
        "OLMo-1B",
        """OLMo-1B/step{1000,2000,3000}/{model,train}/rank0.pt OLMo-1B/step{1000,2000}-unsharded/model.pt
        OLMo-1B/step4000/train/rank0.pt
        OLMo-1B/latest->step3000 OLMo-1B/config.yaml""",
        ["olmo"],
        "step1000 step2000 step1000-unsharded",
        "step3000 step2000-unsharded",
        unwhole="step4000",
    ),
    "detr: checkpoint.pth is the newest": Tree(
        "r50",
        "r50/checkpoint{,0099,0199}.pth r50/eval/latest.pth r50/log.txt",
        ["detr"],
        "checkpoint0099.pth",
        "checkpoint0199.pth checkpoint.pth",
    ),
    "detr: SwAV": Tree(
        "swav/checkpoints",
        "swav/checkpoints/ckp-{0,25,99}.pth swav/checkpoint.pth.tar swav/params.pkl",
        ["detr"],
        "ckp-0.pth ckp-25.pth",
        "ckp-99.pth",
    ),
    "detr: MoCo counts epochs": Tree(
        "moco",
        "moco/checkpoint_{0000,0050,0199}.pth.tar moco/checkpoint.pth.tar",
        ["detr"],
        "checkpoint_0000.pth.tar",
        "checkpoint_0050.pth.tar checkpoint_0199.pth.tar",
        unread="checkpoint.pth.tar",
        keep="min_epoch: 10",
    ),
    "detectron2: all ranks of DINOv2 or none, and what each rank goes on with": Tree(
        "dv2",
        """dv2/model_000{1249,2499,3749,4999}.rank_{0,1}.pth dv2/model_0006249.rank_0.pth dv2/model_final.rank_{0,1}.pth
        dv2/last_checkpoint.rank_0=model_0003749.rank_0.pth dv2/last_checkpoint.rank_1=model_0002499.rank_1.pth""",
        ["detectron2"],
        "model_0001249.rank_0.pth model_0001249.rank_1.pth",
        """model_0002499.rank_0.pth model_0002499.rank_1.pth model_0003749.rank_0.pth model_0003749.rank_1.pth
        model_0004999.rank_0.pth model_0004999.rank_1.pth model_final.rank_0.pth model_final.rank_1.pth""",
        unwhole="model_0006249.rank_0.pth",
    ),
    "basicsr: only states, as networks lie elsewhere": Tree(
        "x/training_states",
        "x/models/net_{g,d}_{5000,10000,15000,latest}.pth x/training_states/{5000,10000}.state",
        ["basicsr"],
        "5000.state",
        "10000.state",
    ),
    "cyclegan: all networks of an epoch, or none": Tree(
        "checkpoints/horse",
        """checkpoints/horse/{5,10,latest}_net_{G_A,G_B,D_A,D_B}.pth checkpoints/horse/15_net_G_A.pth
        checkpoints/horse/iter_5000_net_{G_A,G_B,D_A,D_B}.pth checkpoints/horse/loss_log.txt""",
        ["cyclegan"],
        "5_net_G_A.pth 5_net_G_B.pth 5_net_D_A.pth 5_net_D_B.pth",
        """10_net_G_A.pth 10_net_G_B.pth 10_net_D_A.pth 10_net_D_B.pth latest_net_G_A.pth latest_net_G_B.pth
        latest_net_D_A.pth latest_net_D_B.pth
        iter_5000_net_G_A.pth iter_5000_net_G_B.pth iter_5000_net_D_A.pth iter_5000_net_D_B.pth""",
        unwhole="15_net_G_A.pth",
    ),
    "mxnet: each prefix is a run, and an epoch without its states is torn": Tree(
        "model",
        """model/net-{0000,0001,0010}.params model/net-{0001,0010}.states model/net-0020.params model/net-symbol.json
        model/other-0005.params""",
        ["mxnet"],
        "net-0001.params net-0001.states",
        "net-0000.params net-0010.params net-0010.states other-0005.params",
        unwhole="net-0020.params",
    ),
    "skrl: the best has no number": Tree(
        "runs/x/checkpoints",
        "runs/x/checkpoints/agent_{1000,2000}.pt runs/x/checkpoints/{best_agent,policy_1000}.pt",
        ["skrl"],
        "agent_1000.pt",
        "agent_2000.pt best_agent.pt",
        unread="policy_1000.pt",
    ),
    "mlagents: weights go with what was exported": Tree(
        "results/x/Walker",
        """results/x/Walker/Walker-{499987,999987}.{onnx,pt} results/x/Walker/Walker-1499987.pt results/x/Walker.onnx
        results/x/Walker/checkpoint.pt results/x/run_logs/training_status.json""",
        ["mlagents"],
        "Walker-499987.pt Walker-499987.onnx",
        "Walker-999987.pt Walker-999987.onnx checkpoint.pt",
        unwhole="Walker-1499987.pt",
    ),
    "vissl: the file that lists the shards goes with them, and what the link leads to stays": Tree(
        "swav",
        """swav/model_phase{0,25,50}{,_shard0,_shard1}.torch swav/model_phase75_shard0.torch
        swav/checkpoint.torch->model_phase25.torch""",
        ["vissl"],
        "model_phase0.torch model_phase0_shard0.torch model_phase0_shard1.torch",
        """model_phase25.torch model_phase25_shard0.torch model_phase25_shard1.torch
        model_phase50.torch model_phase50_shard0.torch model_phase50_shard1.torch""",
        unwhole="model_phase75_shard0.torch",
    ),
    "nanotron: the number in latest.txt stays, whole or not": Tree(
        "checkpoints",
        """checkpoints/{10,20,30}/{checkpoint_metadata,model_config}.json checkpoints/40/checkpoint_metadata.json
        checkpoints/2024/photo.png checkpoints/latest.txt=20""",
        ["nanotron"],
        "10",
        "20 30",
        unwhole="40 2024",
    ),
}


def expanded(text: str) -> list[str]:
    """Write out ``{a,b}`` and ``{1..3}``."""
    if not (match := re.search(r"\{(?:([\w.-]*(?:,[\w.-]*)+)|(\d+)\.\.(\d+))\}(?!.*=)|\{([\w.]*(?:,[\w.]*)+)\}", text)):
        return [text]
    listed = match[1] or match[4]
    several = listed.split(",") if listed else map(str, range(int(match[2]), int(match[3]) + 1))
    return [path for one in several for path in expanded(text[: match.start()] + one + text[match.end() :])]


def make(outputs: Path, files: str) -> None:
    for text in re.split(r"(?<!\\)\s+", files):
        path, is_link, target = text.partition("->")
        content = "" if is_link else (CONTENT.search(text) or "")
        if content:
            path = text[: content.start(1) - 1]  # type: ignore[union-attr]
        for name in expanded(path):
            file = outputs / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if is_link:
                file.symlink_to(target)
            else:
                said = content[1] if content else "some bytes"
                file.write_text(said.replace("\\n", "\n").replace("\\ ", " "))


def evidence(outputs: Path, tree: Tree, rules: RuleSet) -> Evidence:
    """Find out what a run would, but for what is in use."""
    listing = scan(str(outputs), Directory("x", tree.directory, part_folders=rules.part_folders))
    known = all_facts(str(outputs), listing, rules)
    with open_below(str(outputs), tree.directory) as directory:
        pointers, notes = read_pointers(directory, listing, rules)
        inside = look_inside(directory, listing, rules)
    now_ns = time.time_ns() + 2 * 3600 * 10**9  # the runs are over
    return known._replace(inside=inside, pointers={**pointers, **known.pointers}, notes=notes, now_ns=now_ns)


def planned(outputs: Path, tree: Tree) -> tuple[list[str], Plan]:
    texts = {"naming.yaml": f"packs: [{PACKS}]", "retention.yaml": POLICY % tree.keep}
    rules = shared_rules(texts, proved=True)
    picked = pick_in(Looked(str(outputs)), rules.packs, tree.directory)
    here = with_packs(rules, picked)
    listing = scan(str(outputs), Directory("x", tree.directory, part_folders=rules.part_folders))
    plan = make_plan(here, listing, rules.policies["default"], evidence=evidence(outputs, tree, here))
    return [pack.name for pack in picked], plan


@every_in_a_folder(TREES)
def test_a_search_finds_the_tree_of_a_framework_and_it_is_pruned_as_its_pack_says(outputs: Path, tree: Tree) -> None:
    check(outputs, tree)
    packs = shared_rules({"naming.yaml": f"packs: [{PACKS}]"}, proved=True).packs
    sights = scout(Looked(str(outputs)), packs)
    assert [(sight.directory, [pack.name for pack in sight.packs]) for sight in sights] == [
        (tree.directory, list(tree.packs))
    ]


def check(outputs: Path, tree: Tree) -> None:
    """Make a tree, plan it, and compare."""
    make(outputs, tree.files)
    packs, plan = planned(outputs, tree)
    goes = {name for act in plan.actions for name in (act.name, *(name for name, _ in act.with_it))}
    assert all(act.kind == "trash" for act in plan.actions)
    links = {entry.name for entry in os.scandir(outputs / tree.directory) if entry.is_symlink()}
    stays = {name for row in plan.kept for name in (row.name, *row.with_it)} - links
    unwhole = set(tree.unwhole.split())
    assert packs == tree.packs
    assert goes == set(tree.goes.split())
    assert stays - unwhole == set(tree.stays.split())
    assert {row.name for row in plan.skipped if row.kind == "unrecognised"} - links == set(tree.unread.split())
    assert unwhole <= {name for problem in plan.problems for name in problem.names} | stays
    assert [p for p in plan.problems if not unwhole.intersection(p.names)] == []


RESULTS = {  # made of checkpoints, and named like them
    "pictures of each epoch": "run/samples/epoch-{1,2,3}/{0,1}.png",
    "predictions, not lone": "run/preds/epoch={1,2}/preds.npy",
    "what was measured": "run/eval/step{100,200}/metrics.json",
    "revisions that are none": "run/eval/step{100,200}-tokens4B/metrics.json",
    "point clouds": "run/point_cloud/iteration_{7000,30000}/point_cloud.ply",
    "videos": "run/video/rl-video-step-{1000,2000}.mp4 run/video/epoch_{1,2}.mp4",
    "arrays": "run/out/{features,val_embeddings,confusion_matrix}_epoch_{1,2}.npz",
    "of each step, by its program": "run/out/{samples,val_features,test-predictions,best_latents}_step_{100,200}.pt",
    "of each epoch, by Keras": "run/out/{features,test-predictions,val_outputs}_epoch_{1,2}.h5",
    "data, by their number": "run/data/{train,val,clip_latents}-0000{01,02}.safetensors",
    "what was made of them": "run/out/{attention,latents,recon,scores,confusion,labels}_epoch_{1,2}.pt",
    "pickles": "run/out/{predictions,eval-results,replay_buffer}_step_{1,2}.pkl",
}


@every_in_a_folder(RESULTS)
def test_results_that_are_named_like_checkpoints_stay(outputs: Path, files: str) -> None:
    tree = Tree(os.path.join(*files.split("/")[:2]), files, [], "", "")
    make(outputs, tree.files)
    assert planned(outputs, tree)[1].actions == ()


def test_every_tree_is_of_a_pack() -> None:
    assert {name.partition(":")[0] for name in TREES} <= set(sources())
