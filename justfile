# Short names for steps of `.ci/run`, which knows how each runs. All steps: bash .ci/run --list

# What to run before each commit.
check:
    bash .ci/run format imports literals pictures clippy docs

# All tests, in both scopes.
test:
    bash .ci/run tests metrics scopes redis

# Other languages, the publisher example, clients of apps, the sidecar, and the alert rules.
interop:
    bash .ci/run visitor languages clients consent sidecar monitoring

# The core and the layer in other frameworks and programs.
hosts:
    bash .ci/run targets actix wiring reactor

# Instructions and allocations of a request, held against the recorded ones.
bench:
    bash .ci/run costs

# Every fuzz target, for a short time.
fuzz:
    bash .ci/run fuzz
