-- Folds of before have what others had written about a run, comments and reasons, under the key of the run's owner. It is
-- a cache: whatever is gone is folded again, without them.
DELETE FROM snapshots;
