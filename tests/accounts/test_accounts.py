"""People, their roles, their tokens."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from djinn.accounts.models import ApiToken, Role, User
from djinn.accounts.services import create_first_administrator, create_token, forget_expired, user_of_key
from djinn.core.errors import UserError

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", role=Role.VIEWER)


@pytest.fixture
def administrator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


ROLES = [(None, 3), ("none", 0), ("viewer", 1), ("operator", 2), ("admin", 3)]


@pytest.mark.parametrize(("role", "rank"), ROLES)
def test_a_role_may_do_what_the_ones_before_it_may(role: str | None, rank: int) -> None:
    person = User.objects.create_user("p", role=role or "none", is_superuser=role is None)
    assert [person.has_role(asked) for asked in Role] == [number <= rank for number in range(4)]


@pytest.mark.parametrize("fields", [{"role": Role.ADMIN}, {"is_superuser": True}])
def test_who_is_inactive_has_no_role(fields: dict[str, object]) -> None:
    person = User.objects.create_user("p", is_active=False, **fields)
    assert [person.has_role(role) for role in Role] == [False] * 4


def test_a_new_person_is_a_viewer() -> None:
    assert User.objects.create_user("new").role == Role.VIEWER


def test_who_is_added_in_the_admin_is_a_viewer_unless_somebody_says_otherwise(administrator: Client) -> None:
    form = administrator.get("/admin/accounts/user/add/").content.decode()
    assert '<option value="viewer" selected>' in form
    password = {"password1": "correct horse battery", "password2": "correct horse battery", "usable_password": "true"}
    administrator.post("/admin/accounts/user/add/", {"username": "vera", "role": "viewer", **password})
    administrator.post("/admin/accounts/user/add/", {"username": "olga", "role": "operator", **password})
    assert dict(User.objects.filter(is_superuser=False).values_list("username", "role")) == {
        "vera": "viewer",
        "olga": "operator",
    }


def test_a_token_opens_for_its_person(ada: User) -> None:
    _, key = create_token(user=ada, name="ci")
    assert user_of_key(key=key) == ada


def test_the_key_of_a_token_is_nowhere_in_the_database(ada: User) -> None:
    token, key = create_token(user=ada, name="ci")
    with connection.cursor() as cursor:
        cursor.execute("SELECT accounts_apitoken::text FROM accounts_apitoken")
        (row,) = cursor.fetchone()
    assert token.name in row
    assert key not in row
    assert key.removeprefix("djinn_") not in row


def test_no_two_keys_are_alike(ada: User) -> None:
    assert len({create_token(user=ada, name="ci")[1] for _ in range(20)}) == 20


def test_an_expired_token_opens_nothing(ada: User) -> None:
    token, key = create_token(user=ada, name="ci", expires_at=timezone.now() + HOUR)
    assert user_of_key(key=key) == ada
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now())
    assert user_of_key(key=key) is None


def test_the_token_of_an_inactive_person_opens_nothing(ada: User) -> None:
    _, key = create_token(user=ada, name="ci")
    User.objects.update(is_active=False)
    assert user_of_key(key=key) is None


@pytest.mark.parametrize(
    "change", [str.upper, lambda key: key + "x", lambda key: key[:-1], lambda key: "", str.swapcase]
)
def test_any_other_key_opens_nothing(ada: User, change: object) -> None:
    _, key = create_token(user=ada, name="ci")
    assert callable(change)
    assert user_of_key(key=change(key)) is None


def test_a_token_that_expires_in_the_past_is_not_made(ada: User) -> None:
    with pytest.raises(UserError, match="past"):
        create_token(user=ada, name="ci", expires_at=timezone.now() - HOUR)
    assert not ApiToken.objects.exists()


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(ada: User) -> None:
    token, key = create_token(user=ada, name="ci")
    times = []
    for _ in range(2):
        user_of_key(key=key)
        token.refresh_from_db()
        times.append(token.last_used_at)
    assert times[0] == times[1] is not None
    ApiToken.objects.update(last_used_at=timezone.now() - HOUR)
    user_of_key(key=key)
    token.refresh_from_db()
    assert token.last_used_at is not None
    assert token.last_used_at > timezone.now() - HOUR


def test_expired_tokens_are_forgotten_and_others_kept(ada: User) -> None:
    old, _ = create_token(user=ada, name="old", expires_at=timezone.now() + HOUR)
    ApiToken.objects.filter(pk=old.pk).update(expires_at=timezone.now() - HOUR)
    create_token(user=ada, name="open")
    create_token(user=ada, name="later", expires_at=timezone.now() + HOUR)
    assert forget_expired() == 1
    assert {token.name for token in ApiToken.objects.all()} == {"open", "later"}


def test_the_first_administrator_can_log_in_and_is_made_once() -> None:
    password = create_first_administrator()
    assert password is not None
    assert Client().login(username="admin", password=password)
    assert User.objects.get().has_role(Role.ADMIN)
    assert create_first_administrator() is None
    assert User.objects.count() == 1


def test_no_administrator_is_made_where_there_are_people(ada: User) -> None:
    out = StringIO()
    call_command("first_login", stdout=out)
    assert out.getvalue() == ""
    assert list(User.objects.all()) == [ada]


def test_the_command_tells_the_first_login_once() -> None:
    first, second = StringIO(), StringIO()
    call_command("first_login", stdout=first)
    call_command("first_login", stdout=second)
    assert first.getvalue().startswith("First login: admin / ")
    assert second.getvalue() == ""


def test_the_command_makes_a_token(ada: User) -> None:
    out = StringIO()
    call_command("token", "ada", name="laptop", stdout=out)
    assert user_of_key(key=out.getvalue().strip()) == ada
    assert ApiToken.objects.get().name == "laptop"


def test_the_command_names_a_person_that_it_does_not_know(ada: User) -> None:
    with pytest.raises(CommandError, match="'bob'"):
        call_command("token", "bob")


TOKENS = "/admin/accounts/apitoken/"


def test_the_admin_shows_a_new_tokens_key_once(administrator: Client, ada: User) -> None:
    form = {"user": ada.pk, "name": "ci", "expires_at_0": "", "expires_at_1": ""}
    page = administrator.post(f"{TOKENS}add/", form, follow=True).content.decode()
    key = page.partition("The key, shown only now: ")[2].partition("<")[0].strip()
    assert user_of_key(key=key) == ada
    assert key not in administrator.get(f"{TOKENS}{ApiToken.objects.get().pk}/change/").content.decode()


def test_the_admin_refuses_an_expiry_in_the_past(administrator: Client, ada: User) -> None:
    form = {"user": ada.pk, "name": "ci", "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}
    page = administrator.post(f"{TOKENS}add/", form)
    assert "The expiry lies in the past." in page.content.decode()
    assert not ApiToken.objects.exists()


def test_a_token_never_changes_hands(administrator: Client, ada: User) -> None:
    token, _ = create_token(user=ada, name="ci")
    other = User.objects.create_user("bob")
    form = {"user": other.pk, "name": "renamed", "expires_at_0": "", "expires_at_1": ""}
    administrator.post(f"{TOKENS}{token.pk}/change/", form)
    token.refresh_from_db()
    assert (token.name, token.user) == ("renamed", ada)
