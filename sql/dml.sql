-- Writing: every statement is all or nothing, and the next search sees it.

CREATE TABLE notes (
    id BIGINT PRIMARY KEY,
    body TEXT NOT NULL,
    metadata JSON DEFAULT '{}',
    v_body VECTOR(3) NOT NULL
) WITH (timestamps = true);

INSERT INTO notes (id, body, v_body) VALUES
    (1, 'buy milk', '[1,0,0]'),
    (2, 'call home', [0, 1, 0]),
    (3, 'water the plants', '[0,0,1]');

INSERT INTO notes (id, body, metadata, v_body) VALUES (4, 'pay rent', '{"due": "1st", "amount": 900}', '[0.6,0.8,0]')
RETURNING id, body;

-- Insert, or change what is there.
INSERT INTO notes (id, body, v_body) VALUES (1, 'buy oat milk', '[0.8,0,0.6]'), (5, 'read', '[0,0.6,0.8]')
ON CONFLICT (id) DO UPDATE SET body = excluded.body, v_body = excluded.v_body;

INSERT INTO notes (id, body, v_body) VALUES (2, 'never mind', '[1,1,1]') ON CONFLICT (id) DO NOTHING;

SELECT id, body, round(v_body <=> '[1,0,0]', 3) AS distance FROM notes ORDER BY distance LIMIT 3;

-- Change vectors: by literal, by arithmetic, from another table.
UPDATE notes SET v_body = l2_normalize(v_body + '[0,0,1]') WHERE id = 2;

CREATE TABLE edits (note BIGINT PRIMARY KEY, body TEXT, v VECTOR(3));
INSERT INTO edits VALUES (3, 'water the garden', '[0,0.1,1]');
UPDATE notes SET body = e.body, v_body = e.v FROM edits e WHERE e.note = notes.id RETURNING id, notes.body;

-- Add a second vector, online; fill it; rank by both.
ALTER TABLE notes ADD COLUMN v_mood HALFVEC(2) NOT NULL DEFAULT '[0,1]';
UPDATE notes SET v_mood = '[1,0]' WHERE body LIKE 'buy%' OR metadata ->> 'amount' IS NOT NULL;

SELECT id, body, round(0.7 * (v_body <-> '[1,0,0]') + 0.3 * (v_mood <-> '[1,0]'), 3) AS score
FROM notes ORDER BY score, id LIMIT 3;

-- Delete by condition, by distance, by ranking.
DELETE FROM notes WHERE v_body <-> '[0,0,1]' < 0.2 RETURNING id, body;
DELETE FROM notes WHERE id IN (SELECT id FROM notes ORDER BY v_body <-> '[0.6,0.8,0]' LIMIT 1) RETURNING id, body;

SELECT id, body, updated_at >= created_at AS times_hold FROM notes ORDER BY id;

ALTER TABLE notes RENAME COLUMN body TO content;
ALTER TABLE notes DROP COLUMN v_mood;
SELECT column_name, type, nullable, default_value FROM mvvd.columns WHERE table_name = 'notes' ORDER BY ordinal;

TRUNCATE notes;
SELECT count(*) FROM notes;

DROP TABLE edits;
DROP TABLE notes;
