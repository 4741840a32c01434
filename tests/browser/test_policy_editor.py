"""The policy editor: findings while typing, the simulator on unsaved text, saving, conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import EMAIL, PASSWORD

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route

    from tests.browser.conftest import Place

pytestmark = [pytest.mark.browser, pytest.mark.stack]

TEXT = """version: "3"
rules:
  - id: own-card
    topic: agents/{username}/card
"""


@pytest.fixture
def editor(signed_in: Page, place: Place) -> Page:
    """The editor of an organization with :data:`TEXT` typed into it, unsaved."""
    signed_in.goto(place.at("access/", place.empty))
    write(signed_in, TEXT)
    return signed_in


def write(page: Page, text: str) -> None:
    """Replace what stands in the editor, as pasting does; the last character is typed."""
    page.wait_for_selector("policy-editor.rich")
    page.evaluate(
        """text => {
            const view = document.querySelector("policy-editor").view;
            const changes = { from: 0, to: view.state.doc.length, insert: text };
            view.dispatch({ changes, selection: { anchor: text.length } });
        }""",
        text[:-1],
    )
    page.locator("policy-editor .cm-content").focus()
    page.keyboard.type(text[-1])


def test_findings_follow_the_typing_and_lead_to_their_line(editor: Page) -> None:
    expect(editor.locator("#findings")).to_contain_text("1 rule")
    write(editor, TEXT + "  - id: own-card\n    topic: a/#/b\n")
    expect(editor.locator("#findings li[data-level=error]").first).to_be_visible()
    expect(editor.locator("policy-editor .cm-lint-marker-error").first).to_be_visible()
    editor.locator("#findings a[data-line='6']").first.click()
    assert editor.evaluate("document.querySelector('policy-editor').view.state.selection.main.head") > len(TEXT)


def test_the_simulator_judges_what_is_not_saved(editor: Page, place: Place) -> None:
    expect(editor.locator("#draft-dirty")).to_be_visible()
    editor.fill("#id_username", "agent-7")
    editor.fill("#id_topic", "agents/agent-7/card")
    editor.get_by_role("button", name="Simulate").click()
    expect(editor.locator(".verdict .word")).to_have_text("Allowed")
    editor.fill("#id_topic", "agents/agent-8/card")
    editor.keyboard.press("Enter")
    expect(editor.locator(".verdict .word")).to_have_text("Denied: no rule allows it")
    expect(editor.locator(".sim-rules")).to_contain_text("topic differs at level 2")
    expect(editor.locator("#draft-dirty")).to_be_visible()


def test_saving_by_keyboard_keeps_the_page_and_a_further_save_works(editor: Page) -> None:
    for line in ("# one", "# two"):
        write(editor, TEXT + line + "\n")
        expect(editor.locator("#draft-dirty")).to_be_visible()
        editor.keyboard.press("Control+s")
        expect(editor.locator("#draft-dirty")).to_be_hidden()
        expect(editor.locator("#draft-state")).to_contain_text("Saved now")
    editor.reload()
    assert editor.input_value("#id_text") == TEXT + "# two\n"


def test_what_is_typed_while_a_save_is_under_way_stays_unsaved(editor: Page) -> None:
    before = editor.input_value("#id_etag")
    held: list[Route] = []
    editor.route("**/access/save/", lambda route: held.append(route), times=1)  # noqa: PLW0108  # it marks what it is given
    with editor.expect_request("**/access/save/"):
        editor.get_by_role("button", name="Save draft").click()
    write(editor, TEXT + "# typed meanwhile\n")
    held[0].continue_()
    expect(editor.locator("#id_etag")).not_to_have_value(before)
    expect(editor.locator("#draft-dirty")).to_be_visible()
    editor.get_by_role("button", name="Save draft").click()
    expect(editor.locator("#draft-dirty")).to_be_hidden()


def test_what_another_tab_saved_is_not_overwritten(editor: Page, context: BrowserContext, place: Place) -> None:
    other = context.new_page()
    other.goto(place.at("access/", place.empty))
    write(other, TEXT + "# theirs\n")
    other.keyboard.press("Control+s")
    expect(other.locator("#draft-dirty")).to_be_hidden()
    write(editor, TEXT + "# mine\n")
    editor.keyboard.press("Control+s")
    expect(editor.locator("#refused")).to_contain_text("Your text is still here")
    assert editor.evaluate("document.querySelector('policy-editor').view.state.doc.toString()") == TEXT + "# mine\n"
    editor.get_by_role("button", name="Overwrite with my text").click()
    expect(editor.get_by_text("Draft saved.")).to_be_visible()
    assert editor.input_value("#id_text") == TEXT + "# mine\n"


def test_the_keyboard_is_not_trapped_in_the_editor(editor: Page) -> None:
    editor.locator("policy-editor .cm-content").focus()
    editor.keyboard.press("Tab")
    assert editor.evaluate("document.activeElement.closest('policy-editor')") is None


def test_review_and_deploy_shows_every_node_and_the_time(editor: Page) -> None:
    write(editor, TEXT + "# to deploy\n")
    editor.get_by_role("button", name="Review and deploy").click()
    editor.get_by_label("Note").fill("from the browser")
    editor.get_by_role("button", name="Deploy to every node").click()
    expect(editor.get_by_text("Enforced on every node")).to_be_visible()
    expect(editor.locator("#progress tbody tr")).to_have_count(2)
    expect(editor.locator("#progress")).to_contain_text("ms")


def test_whoever_is_asked_whether_to_leave_and_stays_may_leave_later(editor: Page) -> None:
    editor.on("dialog", lambda dialog: dialog.dismiss())
    editor.locator("summary[aria-label$=': account']").click()
    for _ in range(2):
        with editor.expect_event("dialog"):
            editor.get_by_role("button", name="Dark").click(no_wait_after=True)
    expect(editor.locator("#draft-dirty")).to_be_visible()


def test_what_was_typed_comes_back_with_the_page_and_still_meets_a_conflict(editor: Page, place: Place) -> None:
    """Back, a reload, a session that ended: the text stays in this tab, with the draft it was typed over."""
    write(editor, TEXT + "# typed for an hour\n")
    editor.on("dialog", lambda dialog: dialog.accept())
    editor.goto(place.at("", place.empty))
    other = editor.context.new_page()
    other.goto(place.at("access/", place.empty))
    write(other, TEXT + "# somebody else\n")
    other.keyboard.press("Control+s")
    expect(other.locator("#draft-state")).to_contain_text("Saved now")
    other.close()
    editor.go_back()
    editor.wait_for_selector("policy-editor.rich")
    assert editor.input_value("#id_text") == TEXT + "# typed for an hour\n"
    expect(editor.locator(".toast")).to_contain_text("is back in the editor")
    expect(editor.locator("#draft-dirty")).to_be_visible()
    editor.locator("policy-editor .cm-content").focus()
    editor.keyboard.press("Control+s")
    expect(editor.locator("#refused")).to_contain_text("Your text is still here, unsaved")


def test_a_save_works_after_signing_in_again_in_another_tab(page: Page, place: Place) -> None:
    sign_in(page, place)
    editor, other = page, page.context.new_page()
    editor.goto(place.at("access/", place.empty))
    with editor.expect_response("**/access/check/"):
        write(editor, TEXT + "# before\n")
    sign_in_again(other, place)
    with editor.expect_response("**/session/"):
        editor.evaluate("window.dispatchEvent(new Event('focus'))")
    editor.wait_for_timeout(100)
    editor.locator("policy-editor .cm-content").focus()
    editor.keyboard.press("Control+s")
    expect(editor.locator("#draft-state")).to_contain_text("Saved now")
    with editor.expect_response("**/access/check/"):
        write(editor, TEXT + "# after\n")
    sign_in_again(other, place)
    editor.evaluate("document.getElementById('policy-form').submit()")
    expect(editor.get_by_role("heading")).to_have_text("Your sign-in changed")
    editor.get_by_role("button", name="Submit again").click()
    editor.wait_for_selector("policy-editor.rich")
    assert editor.input_value("#id_text") == TEXT + "# after\n"


def sign_in_again(page: Page, place: Place) -> None:
    """Sign out and in again in ``page``, as somebody does whose session has ended."""
    page.goto(place.url + "/help/")
    with page.expect_navigation():
        page.evaluate("document.getElementById('sign-out').submit()")
    sign_in(page, place)


def sign_in(page: Page, place: Place) -> None:
    """Sign in, with a session of its own."""
    page.goto(place.url + "/accounts/login/")
    page.fill("#id_login", EMAIL)
    page.fill("#id_password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector(".shell")


def test_a_finding_behind_an_emoji_is_marked_where_it_stands(editor: Page) -> None:
    write(editor, 'version: "3"\nrules:\n  - {note: "\U0001f600\U0001f600", id: a, topic: a/#/b}\n')
    marked = editor.locator("policy-editor .cm-lintRange-error").first
    expect(marked).to_be_visible()
    assert "a/#/b" in marked.inner_text()
    assert "topic" not in marked.inner_text()
