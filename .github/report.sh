#!/usr/bin/env bash
# Open an issue with this title and a link to the run, or comment on the one that is open.
set -euo pipefail
title=$1
run="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
number=$(gh issue list --repo "$GITHUB_REPOSITORY" --state open --search "in:title \"$title\"" \
  --json number --jq '.[0].number // empty')
if [ -n "$number" ]; then
  gh issue comment "$number" --repo "$GITHUB_REPOSITORY" --body "Again: $run"
else
  gh issue create --repo "$GITHUB_REPOSITORY" --title "$title" --body "See $run"
fi
