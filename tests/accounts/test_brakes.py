"""Whoever guesses waits: at the login page, at the admin's, and with tokens."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.http import HttpRequest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from djinn.accounts.brakes import Guessed, TooManyAttempts, begin_attempt, network_of
from djinn.accounts.models import Brake, Role, User
from djinn.accounts.services import create_token, forget_expired

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
HERE, THERE = "192.0.2.7", "198.51.100.9"


@pytest.fixture(autouse=True)
def ada(settings: Settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # what is slow is not tested here
    return User.objects.create_user("ada", password=PASSWORD, role=Role.VIEWER)


def log_in(name: str = "ada", password: str = "wrong", address: str = HERE, path: str = "/login/") -> Any:
    return Client().post(path, {"username": name, "password": password}, REMOTE_ADDR=address)


def time_passes(seconds: float) -> None:
    moved = timedelta(seconds=seconds)
    Brake.objects.update(blocked_until=F("blocked_until") - moved, failed_at=F("failed_at") - moved)


def waits() -> dict[str, int]:
    """The seconds that each subject waits since its last failure."""
    return {brake.subject: (brake.blocked_until - brake.failed_at).seconds for brake in Brake.objects.all()}


def account_waits() -> int:
    return next(wait for subject, wait in waits().items() if subject.startswith("account:"))


def block(subject: str, seconds: int = 30) -> None:
    changed = Brake.objects.filter(subject__startswith=subject).update(
        blocked_until=timezone.now() + timedelta(seconds=seconds)
    )
    assert changed == 1


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_failures_at_an_account_make_the_next_attempt_wait_whether_it_exists_or_not(name: str) -> None:
    answers = [log_in(name, address=f"10.0.{number}.1") for number in range(5)]
    assert ([answer.status_code for answer in answers], account_waits()) == ([200] * 5, 1)
    block("account:")
    answer = log_in(name, address=THERE)
    assert (answer.status_code, 25 < int(answer.headers["Retry-After"]) <= 30) == (429, True)
    assert re.search(r"Too many failed attempts\. Try again in \d+ seconds\.", answer.content.decode())


def test_the_right_password_is_not_looked_at_meanwhile_and_is_afterwards() -> None:
    log_in()
    block("account:")
    assert log_in(password=PASSWORD, address=THERE).status_code == 429
    time_passes(31)
    assert log_in(password=PASSWORD, address=THERE).status_code == 302
    assert not Brake.objects.filter(subject__startswith="account:").exists()  # it begins anew


def test_the_wait_doubles_and_an_account_is_never_closed_for_longer_than_a_minute() -> None:
    seen = []
    for number in range(14):
        log_in(address=f"10.0.{number}.1")
        seen.append(account_waits())
        time_passes(seen[-1])
    assert seen == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_failures_of_a_network_make_it_wait_at_any_account_and_nobody_else() -> None:
    for number in range(20):
        assert log_in(f"name-{number}", address=f"192.0.2.{number}").status_code == 200
    assert waits()["login:192.0.2.0/24"] == 1
    block("login:")
    assert log_in(password=PASSWORD, address=HERE).status_code == 429
    assert log_in(password=PASSWORD, address=THERE).status_code == 302


def test_a_genuine_login_between_guesses_does_not_free_the_network() -> None:
    for number in range(25):
        assert log_in(f"name-{number}").status_code == 200
        time_passes(32)
        assert log_in(password=PASSWORD).status_code == 302
    assert Brake.objects.get(subject="login:192.0.2.0/24").failures == 25


def test_the_admins_login_is_the_same_page(ada: User) -> None:
    answer = log_in(path="/admin/login/?next=/admin/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login/?next=/admin/")
    client = Client()
    User.objects.filter(pk=ada.pk).update(is_staff=True, is_superuser=True)
    page = client.post(
        "/login/?next=/admin/", {"username": "ada", "password": PASSWORD, "next": "/admin/"}, follow=True
    )
    assert page.request["PATH_INFO"] == "/admin/"


def test_unknown_tokens_make_their_network_wait_and_keep_no_holder_of_one_out(ada: User) -> None:
    _, key = create_token(user=ada, name="ci")

    def ask(key: str, address: str = HERE) -> Any:
        return Client().get("/api/v1/runs/", headers={"Authorization": f"Bearer {key}"}, REMOTE_ADDR=address)

    assert {ask(f"djinn_{number}").status_code for number in range(20)} == {401}
    assert waits() == {"token:192.0.2.0/24": 1}
    block("token:")
    answer = ask("djinn_x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "throttled")
    assert f"Try again in {answer.headers['Retry-After']} seconds." in answer.json()["error"]["message"]
    assert ask("djinn_other", THERE).status_code == 401
    assert ask(key).status_code == 200
    assert log_in(password=PASSWORD).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_many_attempts_at_once_are_no_way_around() -> None:
    guessed = [Guessed("account:x", 5, 60)]

    def attempt(_: int) -> bool:
        try:
            begin_attempt(guessed)
        except TooManyAttempts:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(24))) == 5


def test_failures_are_forgotten() -> None:
    log_in()
    assert Brake.objects.count() == 2
    assert forget_expired() == 0
    Brake.objects.update(failed_at=timezone.now() - timedelta(hours=2))
    assert forget_expired() == 2
    for _ in range(4):
        log_in()
    Brake.objects.update(failed_at=timezone.now() - timedelta(hours=2))
    log_in()
    assert set(Brake.objects.values_list("failures", flat=True)) == {1}


def test_what_people_type_as_a_name_is_not_stored() -> None:
    log_in("my password by mistake")
    assert not Brake.objects.filter(subject__contains="mistake").exists()


NETWORKS = {
    "192.0.2.7": "192.0.2.0/24",
    "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
    "::ffff:192.0.2.7": "192.0.2.0/24",
    "": "unknown",
    "not an address": "unknown",
}


@pytest.mark.parametrize(("address", "network"), NETWORKS.items())
def test_a_network_is_what_one_subscriber_has(address: str, network: str) -> None:
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": "203.0.113.1"}
    assert network_of(request) == network


def test_an_administrator_lets_somebody_try_again_at_once(ada: User) -> None:
    log_in()
    block("account:")
    administrator = Client()
    administrator.force_login(User.objects.create_superuser("root"))
    brake = Brake.objects.get(subject__startswith="account:")
    administrator.post(f"/admin/accounts/brake/{brake.pk}/delete/", {"post": "yes"})
    assert log_in(password=PASSWORD).status_code == 302
