"""The commands of ckptrules: `doit list` shows them, `doit help migrate` the options of one; rules/ holds the rules.

Reword a sentence, leave a command out, add tasks of your own at the end.
"""

from ckptrules.run import command, doit_config

DOIT_CONFIG = doit_config()

# Begin
demo = command("demo", "Make a sample tree and show plan, migrate, delete and a second run on it")

# Look
plan = command("plan", "Show what migrate would do, and why; change nothing (the default)")
explain = command("explain", "Explain why a checkpoint stays or goes, and what would save it")
verify = command("verify", "Check the names, structure and content of checkpoints, running none of them")
catalog = command("catalog", "List the checkpoints with what their names say: a table, JSON or CSV")
page = command("page", "Draw what delete_old=1 would do as one HTML file: what stays, what goes, why, what if")
usage = command("usage", "Show how many bytes are protected, kept, could go, or lie in the trash")
pins = command("pins", "List what is pinned, what for, and whether it is there")
packs = command("packs", "List the packs: which frameworks' checkpoints are known, and which of them are here")
check = command("check", "Test the rule files against their own examples")

# Change
migrate = command("migrate", "Rename to the target format; with delete_old=1 also delete what the policy does not keep")
after = command("after", "Do what migrate does, but only beside the checkpoint just saved: for hooks of a training run")
fix_state = command("fix_state", "Update the paths that Lightning stores inside checkpoints")
drop_links = command("drop_links", "Remove the links that migrate leave_links=1 left under old names")
refs = command("refs", "Find old names in scripts, notebooks and documents; with apply=1 write the new ones")

# Pin
pin = command("pin", "Pin a checkpoint: it is never deleted, and keeps its pin when it is renamed")
unpin = command("unpin", "Take a pin away")

# Take back
history = command("history", "List the runs: when, who, what they did, what became of it")
undo = command("undo", "Take back what the newest run did, or the one that run=ID names")
trash = command("trash", "List what waits in the trash, and on which day it is freed")
purge = command("purge", "Empty the trash: free the space of deleted checkpoints")

# Keep elsewhere
backup = command("backup", "Copy outputs, or some experiments of it, with a manifest of sizes and checksums")
backups = command("backups", "List the backups; with verify=1 check every file against its checksum")
restore = command("restore", "Bring back from a backup what is missing; with force=1 also what differs")
drop_backup = command("drop_backup", "Remove one backup")
archive = command("archive", "Pack old experiments into one compressed file each, prove it, and move them to the trash")
unarchive = command("unarchive", "Bring archived experiments back")

# Note and repeat
log = command("log", "Write the entry of a run for the experiment log")
schedule = command(
    "schedule", "Print what to hand to cron or systemd for this folder and these options; install nothing"
)
