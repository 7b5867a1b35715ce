"""What a user does with JupyterLab's menus."""


def choose_theme(page, name):
    """Choose a theme by its name, and wait until the page has it."""
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    labels = page.locator(".lm-Menu-itemLabel")
    labels.get_by_text("Theme", exact=True).hover()
    labels.get_by_text(name, exact=True).click()
    page.locator(f"body[data-jp-theme-name='{name}']").wait_for(state="attached", timeout=20_000)
