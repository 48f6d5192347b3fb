-- When a projection's rows were last made anew: whoever keeps them forgets what it remembers of the old ones.
ALTER TABLE projections ADD COLUMN rebuilt_at timestamptz;
