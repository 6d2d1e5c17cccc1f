"""From a configuration to a running flow: everything that can be refused is refused before any training.

Prefect and MLflow read their settings when they are imported, so they are imported last.
"""

from flows import campaign as campaigns
from flows import data, environment
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig
from flows.progress import Display


def launch(config: ActiveLearningConfig, display: Display) -> Campaign:
    """Run a campaign to its end, or to where it waits for people.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before any training where possible.
    """
    with campaigns.locked(config.folder):
        campaigns.check_config(config)
        cohort, fingerprints = _sound_cohort(config, display)
        campaign = campaigns.create_or_open(config)
        killed = campaigns.end_orphans(config.folder)
        environment.prepare(config.campaigns_root)
        from flows.active_learning import Loop, active_learning
        from flows.tracking import Tracker

        loop = Loop(
            config=config,
            campaign=campaign,
            cohort=cohort,
            fingerprints=fingerprints,
            display=display,
            tracker=Tracker(campaign=campaign),
        )
        active_learning.with_options(flow_run_name=campaign.name)(loop, killed)
    return campaign


def _sound_cohort(config: ActiveLearningConfig, display: Display) -> tuple[data.Cohort, dict[str, str]]:
    if config.data.layout == "phantom":
        with display.step("generate scans") as report:
            data.generate_phantom(config, lambda done, total: report(done, total, {}))
    cohort = data.load_cohort(config)
    with display.step("check every scan") as report:
        data.validate_cohort(config, cohort, lambda done, total: report(done, total, {}))
    if not cohort.dataset.patients_known:
        display.say(f"  {cohort.dataset.name} does not say which scans share a patient: splits go by case")
    return cohort, dict(data.fingerprints(cohort.dataset.cases))
