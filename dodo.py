"""The tasks of ckptrules. `doit list` shows them, `doit help migrate` shows the options, rules/ holds the rules."""

from ckptrules.run.startup import doit_config, with_options

DOIT_CONFIG = doit_config()


@with_options
def task_plan(options):
    """Show what migrate would do, and why; change nothing (the default)"""
    from ckptrules.commands.migrate import plan

    return plan(options)


@with_options
def task_migrate(options):
    """Rename to the target format; with delete_old=1 also delete what the policy does not keep"""
    from ckptrules.commands.migrate import migrate

    return migrate(options)


@with_options
def task_verify(options):
    """Check names, structure and content of what is there, running none of it; list and count"""
    from ckptrules.commands.verify import verify_tasks

    return verify_tasks(options)


@with_options
def task_catalog(options):
    """List the checkpoints with what their names say: a table, JSON or CSV"""
    from ckptrules.commands.catalog import catalog_task

    return catalog_task(options)


@with_options
def task_check(options):
    """Test the rule files against their own examples"""
    from ckptrules.commands.check import check

    return check(options)


@with_options
def task_history(options):
    """List the runs: when, who, what they did, what became of it"""
    from ckptrules.commands.history import history

    return history(options)


@with_options
def task_undo(options):
    """Take back what the newest run did, or the one that run=ID names"""
    from ckptrules.commands.undo import undo

    return undo(options)


@with_options
def task_purge(options):
    """Empty the trash: free the space of deleted checkpoints"""
    from ckptrules.commands.migrate import purge

    return purge(options)


@with_options
def task_explain(options):
    """Say of single checkpoints why they stay or go, by which rules, and what would change that"""
    from ckptrules.commands.explain import explain

    return explain(options)


@with_options
def task_trash(options):
    """List what waits in the trash, and on which day it goes"""
    from ckptrules.commands.trash import trash

    return trash(options)


@with_options
def task_usage(options):
    """Show how many bytes are protected, kept, could go, or lie in the trash"""
    from ckptrules.commands.usage import usage

    return usage(options)


@with_options
def task_archive(options):
    """Pack old experiments into one compressed file each, prove it, and move them to the trash"""
    from ckptrules.commands.archive import archive

    return archive(options)


@with_options
def task_unarchive(options):
    """Bring an archived experiment back"""
    from ckptrules.commands.archive import unarchive

    return unarchive(options)


@with_options
def task_schedule(options):
    """Print what to hand to cron or systemd, for this folder and these options; install nothing"""
    from ckptrules.commands.schedule import schedule

    return schedule(options)


@with_options
def task_fix_state(options):
    """Bring the old paths inside the checkpoints up to date, so that training goes on as if nothing had happened"""
    from ckptrules.commands.fix_state import fix_state

    return fix_state(options)


@with_options
def task_drop_links(options):
    """Remove the links that migrate leave_links=1 left under old names"""
    from ckptrules.commands.drop_links import drop_links

    return drop_links(options)


@with_options
def task_refs(options):
    """Show where scripts, notebooks and documents ask for old names; with apply=1 write the new ones"""
    from ckptrules.commands.refs import refs

    return refs(options)


@with_options
def task_log(options):
    """Write the entry of a run for the experiment log"""
    from ckptrules.commands.log import log

    return log(options)


@with_options
def task_demo(options):
    """Make a sample tree and show plan, migrate, delete and a second run on it"""
    from ckptrules.commands.demo import demo

    return demo(options)


@with_options
def task_backup(options):
    """Copy outputs, or some experiments of it, with a manifest of sizes and checksums"""
    from ckptrules.commands.backup import backup

    return backup(options)


@with_options
def task_backups(options):
    """List the backups; with verify=1 check every file against its checksum"""
    from ckptrules.commands.backup import backups

    return backups(options)


@with_options
def task_restore(options):
    """Bring back from a backup what is missing; with force=1 also what differs"""
    from ckptrules.commands.backup import restore

    return restore(options)


@with_options
def task_drop_backup(options):
    """Remove one backup"""
    from ckptrules.commands.backup import drop_backup

    return drop_backup(options)
