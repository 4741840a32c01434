"""The policy core: reads, compiles and evaluates access policies. Pure Python, no Django, no I/O.

``parse`` reads a document, ``compile_policy`` makes the index that the edge runs, ``acl.policy.engine.evaluate`` is the
specification of what the index answers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from acl.policy.engine.index import CompiledPolicy, compile_policy
from acl.policy.engine.model import (
    EMPTY_POLICY,
    MAX_DOCUMENT_BYTES,
    MAX_RULES,
    Decision,
    Effect,
    Identity,
    NearMiss,
    Policy,
    PolicyTest,
    Request,
    Rule,
    Who,
)
from acl.policy.engine.running import TestOutcome, decide, run_tests
from acl.policy.engine.verdicts import NO_RULE, exceptions
from acl.policy.language.document import Parsed, parse
from acl.policy.language.printer import canonical, digest, from_canonical, to_json, to_yaml
from acl.policy.language.reader import Finding, Fix, Span

if TYPE_CHECKING:
    from acl.policy.analysis.comparison import PolicyDiff, Relation, diff, is_wider, permits
    from acl.policy.analysis.explanation import Explanation, Outcome, RuleExplanation, explain
    from acl.policy.analysis.linter import is_quick, lint
    from acl.policy.analysis.regions import Region
    from acl.policy.analysis.suggestion import Suggestion, suggest

# Analysis, which edges do not use, is imported at its first use, so that they start fast.
_ON_DEMAND = {
    **dict.fromkeys(("PolicyDiff", "Relation", "diff", "is_wider", "permits"), "analysis.comparison"),
    **dict.fromkeys(("Explanation", "Outcome", "RuleExplanation", "explain"), "analysis.explanation"),
    **dict.fromkeys(("is_quick", "lint"), "analysis.linter"),
    **dict.fromkeys(("Region",), "analysis.regions"),
    **dict.fromkeys(("Suggestion", "suggest"), "analysis.suggestion"),
}

__all__ = [
    "EMPTY_POLICY",
    "MAX_DOCUMENT_BYTES",
    "MAX_RULES",
    "NO_RULE",
    "CompiledPolicy",
    "Decision",
    "Effect",
    "Explanation",
    "Finding",
    "Fix",
    "Identity",
    "NearMiss",
    "Outcome",
    "Parsed",
    "Policy",
    "PolicyDiff",
    "PolicyTest",
    "Region",
    "Relation",
    "Request",
    "Rule",
    "RuleExplanation",
    "Span",
    "Suggestion",
    "TestOutcome",
    "Who",
    "canonical",
    "compile_policy",
    "decide",
    "diff",
    "digest",
    "exceptions",
    "explain",
    "from_canonical",
    "is_quick",
    "is_wider",
    "lint",
    "parse",
    "permits",
    "run_tests",
    "suggest",
    "to_json",
    "to_yaml",
]


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"acl.policy.{_ON_DEMAND[name]}"), name)
