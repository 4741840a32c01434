"""The policy core: what is allowed, decided in one place. Pure Python, no Django, no I/O.

``parse`` reads a document, ``compile_policy`` makes the index that the edge runs, ``acl.policy.evaluate`` is the
specification of what the index answers.
"""

from acl.policy.comparison import PolicyDiff, Region, Relation, diff, is_wider, permits
from acl.policy.document import Parsed, parse
from acl.policy.explanation import Explanation, Outcome, RuleExplanation, explain
from acl.policy.index import CompiledPolicy, compile_policy
from acl.policy.linter import lint
from acl.policy.model import (
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
from acl.policy.printer import canonical, digest, to_json, to_yaml
from acl.policy.reader import Finding, Fix, Span
from acl.policy.running import TestOutcome, decide, run_tests
from acl.policy.suggestion import Suggestion, suggest

__all__ = [
    "EMPTY_POLICY",
    "MAX_DOCUMENT_BYTES",
    "MAX_RULES",
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
    "explain",
    "is_wider",
    "lint",
    "parse",
    "permits",
    "run_tests",
    "suggest",
    "to_json",
    "to_yaml",
]
