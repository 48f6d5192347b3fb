-- What readers of one category find its events by: the part of a stream's id before the first `-`.
CREATE INDEX events_of_category ON events (split_part(stream_id, '-', 1), transaction_id, global_position);
