-- Which run's conversation a run goes on with, for lists. Runs of before get it when the list is made anew.
ALTER TABLE runs ADD COLUMN replays_run_id text;
