"""The toy diagnostic's section of the report."""

from html import escape


def section(found, kinds, store):
    lines = (f"<li>{escape(each['label'])}: at most {max(each['norms'].values()):.1f}</li>" for each in found)
    return f"<h2>How large are the weights?</h2><ul>{''.join(lines)}</ul>"
