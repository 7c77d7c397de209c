"""Studies shared through a storage: each is claimed once, and what dies comes back."""

import threading

import optuna
import pytest
import sqlalchemy.exc
from optuna.trial import TrialState

from metaopt.bench.records import BudgetRecord, Cost, StudyRecord
from tuning.leases import LeaseLostError, LeaseQueue
from tuning.slots import StudyKey
from tuning.storages import PatientStorage, StorageError

STUDIES = [StudyKey("adamw+random", "digits_mlp", study) for study in (1, 2, 3)]
CAMPAIGN = {"name": "shared", "budget": "16x"}


def record_of(key):
    budget = BudgetRecord(currency="steps", study=10.0, trial=5.0, eval_period=1.0)
    return StudyRecord(
        campaign="shared", contender=key.contender, workload=key.workload, study=key.study,
        ended="budget", trials=2, spent=Cost(steps=10), budget=budget, tuner_seconds=0.0,
        largest_step=1.0,
    )  # fmt: skip


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


SERVERS = [
    pytest.param("postgres_url", marks=pytest.mark.slow),
    pytest.param("mysql_url", marks=pytest.mark.slow),
]


@pytest.fixture(params=["journal", *SERVERS])
def url(request, tmp_path):
    if request.param == "journal":
        return f"journal:{tmp_path}/storage.log"
    return request.getfixturevalue(request.param)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def join(url, clock):
    """A worker's view of the queue, through a connection of its own."""

    def join(worker, campaign=CAMPAIGN, studies=STUDIES):
        return LeaseQueue(
            PatientStorage(url), campaign, studies, worker=worker, lease_seconds=60.0, now=clock
        )

    return join


def test_every_study_is_claimed_by_one_worker(join):
    one, two = join("one"), join("two")

    leases = [one.claim(), two.claim(), one.claim(), two.claim()]

    assert [lease and lease.key for lease in leases] == [*STUDIES, None]


def test_workers_that_claim_at_once_never_share_a_study(join):
    queues = [join(f"worker {number}") for number in range(4)]
    claimed, barrier = [], threading.Barrier(len(queues))

    def work(queue):
        barrier.wait()
        while (lease := queue.claim()) is not None:
            claimed.append(lease.key)

    threads = [threading.Thread(target=work, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == STUDIES


def test_all_workers_see_the_records_when_all_is_done(join):
    one, two = join("one"), join("two")

    while (lease := one.claim()) is not None:
        assert not two.is_done()
        one.finish(lease, record_of(lease.key))

    assert two.is_done()
    assert two.finished() == {key: record_of(key) for key in STUDIES}
    assert join("three").claim() is None


def test_a_lease_that_is_renewed_lasts(join, clock):
    one, two = join("one"), join("two")
    leases = [one.claim() for _ in STUDIES]

    for _ in range(10):
        clock.time += 40.0
        for lease in leases:
            one.renew(lease)
        assert two.claim() is None


def test_the_studies_of_a_silent_worker_go_back_to_the_queue(join, clock):
    one, two = join("one"), join("two")
    for _ in STUDIES:
        one.claim()
    assert two.claim() is None  # it has seen their beats now

    clock.time += 61.0
    leases = [two.claim() for _ in STUDIES]

    assert [lease and lease.key for lease in leases] == STUDIES
    assert two.claim() is None


def test_a_worker_that_was_silent_for_too_long_hears_that_it_lost_its_study(join, clock):
    one, two = join("one"), join("two")
    lost = one.claim()
    two.claim()
    clock.time += 61.0
    while two.claim() is not None:
        pass

    with pytest.raises(LeaseLostError, match="adamw\\+random on digits_mlp, study 1"):
        one.renew(lost)
    with pytest.raises(LeaseLostError):
        one.finish(lost, record_of(lost.key))
    assert not two.finished()  # nothing is counted twice


def test_what_a_dead_worker_had_spent_is_known_to_the_next(join, clock):
    one, two = join("one"), join("two")
    lease = one.claim()
    two.claim()
    clock.time += 45.0
    one.renew(lease)
    two.claim()
    clock.time += 61.0

    again = two.claim()

    assert (again.key, again.seconds_before) == (lease.key, 45.0)


def test_a_study_that_is_let_go_of_waits_again(join):
    one, two = join("one"), join("two")
    lease = one.claim()

    one.release(lease, "stopped")

    assert sorted(two.claim().key for _ in STUDIES) == STUDIES


def test_a_study_that_was_queued_twice_runs_once(join, url):
    one, two = join("one"), join("two")
    running = one.claim()
    storage = PatientStorage(url)
    study = storage.call(lambda s: s.get_study_id_from_name("campaign shared"))
    for key in STUDIES:
        template = optuna.trial.create_trial(
            state=TrialState.WAITING, user_attrs={"study": list(key)}
        )
        storage.call(lambda s, t=template: s.create_new_trial(study, t))

    claimed = []
    while (lease := two.claim()) is not None:
        claimed.append(lease.key)
        two.finish(lease, record_of(lease.key))

    assert [running.key, *claimed] == STUDIES
    one.finish(running, record_of(running.key))
    assert one.is_done()


def test_a_study_that_got_lost_between_two_steps_of_a_worker_is_queued_again(join, url):
    join("one")
    storage = PatientStorage(url)
    study = storage.call(lambda s: s.get_study_id_from_name("campaign shared"))
    first = storage.call(lambda s: s.get_all_trials(study))[0]
    storage.call(lambda s: s.set_trial_state_values(first._trial_id, TrialState.FAIL))

    two = join("two")

    assert sorted(two.claim().key for _ in STUDIES) == STUDIES


def test_another_campaign_of_the_same_name_is_refused_with_the_difference(join):
    join("one")

    with pytest.raises(ValueError, match="budget: '16x' there, '8x' now"):
        join("two", campaign={**CAMPAIGN, "budget": "8x"})


def test_a_server_that_is_away_is_waited_for_longer_and_longer(url):
    waits, answers = [], [sqlalchemy.exc.OperationalError("s", {}, Exception("away"))] * 2
    storage = PatientStorage(url, sleep=waits.append)

    def action(_):
        if answers:
            raise answers.pop()
        return "here"

    assert storage.call(action) == "here"
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("server", SERVERS)
def test_workers_that_open_a_new_database_at_once_all_find_it_ready(server, request):
    url = request.getfixturevalue(server)
    barrier, opened = threading.Barrier(4), []

    def work():
        barrier.wait()
        opened.append(PatientStorage(url))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(opened) == 4


def test_a_server_that_stays_away_is_a_clear_error():
    waits = []

    with pytest.raises(StorageError, match=r"me:\*\*\*@localhost:1/x does not answer .*lost"):
        PatientStorage("postgresql://me:secret@localhost:1/x", sleep=waits.append)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host", "A storage is one of"),
        ("results.db", "A storage is one of"),
        ("journal:/no/such/folder/file.log", "No folder '/no/such/folder'"),
        ("grpc://host", "grpc://host:port"),
        ("grpc://me:TopSecret1@host", r"got 'grpc://me:\*\*\*@host'"),
        ("postgresql://me:TopSecret1@host:port/x", r"got 'postgresql://me:\*\*\*@host:port/x'"),
        ("mysql://me:Top@Secret1@host/x", r"written as %40, got 'mysql://me:\*\*\*@host/x'"),
    ],
)
def test_a_url_of_another_form_is_refused(url, message):
    with pytest.raises(ValueError, match=message):
        PatientStorage(url, sleep=lambda _: pytest.fail("nothing to wait for"))


def test_a_storage_that_cannot_grant_a_claim_once_is_refused(tmp_path):
    # SQLite locks no rows: two workers that read "waiting" at once would both be granted it.
    storage = PatientStorage(f"sqlite:///{tmp_path}/storage.db")

    with pytest.raises(ValueError, match="sqlite cannot share studies among workers"):
        LeaseQueue(storage, CAMPAIGN, STUDIES, worker="one")
