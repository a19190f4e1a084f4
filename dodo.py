"""The tasks of ckptrules. `doit list` shows them, `doit help migrate` shows the options, rules/ holds the rules."""

from ckptrules import (
    archive_task,
    backup_tasks,
    catalog_task,
    demo,
    explain_task,
    log_task,
    refs_task,
    schedule_task,
    space_tasks,
    state_tasks,
    tasks,
    undo,
    verify_task,
)

DOIT_CONFIG = tasks.doit_config()


@tasks.with_options
def task_plan(options):
    """Show what migrate would do, and why; change nothing (the default)"""
    return tasks.plan(options)


@tasks.with_options
def task_migrate(options):
    """Rename to the target format; with delete_old=1 also delete what the policy does not keep"""
    return tasks.migrate(options)


@tasks.with_options
def task_verify(options):
    """Check names, structure and content of what is there, running none of it; list and count"""
    return verify_task.verify_tasks(options)


@tasks.with_options
def task_catalog(options):
    """List the checkpoints with what their names say: a table, JSON or CSV"""
    return catalog_task.catalog_task(options)


@tasks.with_options
def task_check(options):
    """Test the rule files against their own examples"""
    return tasks.check(options)


@tasks.with_options
def task_history(options):
    """List the runs: when, who, what they did, what became of it"""
    return undo.history(options)


@tasks.with_options
def task_undo(options):
    """Take back what the newest run did, or the one that run=ID names"""
    return undo.undo(options)


@tasks.with_options
def task_purge(options):
    """Empty the trash: free the space of deleted checkpoints"""
    return tasks.purge(options)


@tasks.with_options
def task_explain(options):
    """Say of single checkpoints why they stay or go, by which rules, and what would change that"""
    return explain_task.explain(options)


@tasks.with_options
def task_trash(options):
    """List what waits in the trash, and on which day it goes"""
    return space_tasks.trash(options)


@tasks.with_options
def task_usage(options):
    """Show how many bytes are protected, kept, could go, or lie in the trash"""
    return space_tasks.usage(options)


@tasks.with_options
def task_archive(options):
    """Pack old experiments into one compressed file each, prove it, and move them to the trash"""
    return archive_task.archive(options)


@tasks.with_options
def task_unarchive(options):
    """Bring an archived experiment back"""
    return archive_task.unarchive(options)


@tasks.with_options
def task_schedule(options):
    """Print what to hand to cron or systemd, for this folder and these options; install nothing"""
    return schedule_task.schedule(options)


@tasks.with_options
def task_fix_state(options):
    """Bring the old paths inside the checkpoints up to date, so that training goes on as if nothing had happened"""
    return state_tasks.fix_state(options)


@tasks.with_options
def task_drop_links(options):
    """Remove the links that migrate leave_links=1 left under old names"""
    return state_tasks.drop_links(options)


@tasks.with_options
def task_refs(options):
    """Show where scripts, notebooks and documents ask for old names; with apply=1 write the new ones"""
    return refs_task.refs(options)


@tasks.with_options
def task_log(options):
    """Write the entry of a run for the experiment log"""
    return log_task.log(options)


@tasks.with_options
def task_demo(options):
    """Make a sample tree and show plan, migrate, delete and a second run on it"""
    return demo.demo()


@tasks.with_options
def task_backup(options):
    """Copy outputs, or some experiments of it, with a manifest of sizes and checksums"""
    return backup_tasks.backup(options)


@tasks.with_options
def task_backups(options):
    """List the backups; with verify=1 check every file against its checksum"""
    return backup_tasks.backups(options)


@tasks.with_options
def task_restore(options):
    """Bring back from a backup what is missing; with force=1 also what differs"""
    return backup_tasks.restore(options)


@tasks.with_options
def task_drop_backup(options):
    """Remove one backup"""
    return backup_tasks.drop_backup(options)
