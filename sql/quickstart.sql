-- MVVD in five minutes, on 4,000 real Debian packages. Run it from the root of the repository.
--
-- Each package has three vectors, made by the same text model (all-MiniLM-L6-v2, 384 dimensions, 16-bit floats):
-- v_name from its name, v_summary from its one-line summary, v_description from its long description.

-- A Parquet file becomes a table. Vector columns stay vectors, and the column "id" becomes the primary key.
CREATE TABLE packages AS
SELECT id, package, section, essential, installed_kib, depends, summary, v_name, v_summary, v_description
FROM 'data/debian_4k.parquet';

SELECT column_name, type, primary_key FROM mvvd.columns WHERE table_name = 'packages' ORDER BY ordinal;

-- 1. One vector: the packages whose summaries are nearest to that of the editor nano.
--    <=> is the cosine distance. Also <-> (L2), <#> (negative inner product), <+> (L1), <~> and <%> (bits).
SELECT package, section, v_summary <=> (SELECT v_summary FROM packages WHERE package = 'nano') AS distance, summary
FROM packages
WHERE package <> 'nano'
ORDER BY distance
LIMIT 5;

-- 2. Cross-vector: several fields in one score. What else is like kdenlive, a video editor, above all in what it does?
--    A score is an expression over distances, smaller is nearer; mind the parentheses around each distance.
SELECT package, section, summary,
       0.2 * (v_name <=> (SELECT v_name FROM packages WHERE package = 'kdenlive'))
     + 0.5 * (v_summary <=> (SELECT v_summary FROM packages WHERE package = 'kdenlive'))
     + 0.3 * (v_description <=> (SELECT v_description FROM packages WHERE package = 'kdenlive')) AS score
FROM packages
WHERE package <> 'kdenlive'
ORDER BY score
LIMIT 5;

-- 3. The same ranking under a filter: the five nearest of the rows that pass, however few those are.
--    A prepared statement takes weights, names and vectors as parameters.
PREPARE similar AS
SELECT package, section, installed_kib,
       $2 * (v_summary <=> (SELECT v_summary FROM packages WHERE package = $1))
     + $3 * (v_description <=> (SELECT v_description FROM packages WHERE package = $1)) AS score
FROM packages
WHERE package <> $1 AND section IN ('graphics', 'sound', 'video') AND installed_kib < 5000
ORDER BY score
LIMIT 5;

EXECUTE similar('kdenlive', 0.5, 0.5);
EXECUTE similar('kdenlive', 0.9, 0.1);

-- 4. Other combinations. LEAST: near in one field is enough. GREATEST: every field must be near.
SELECT package,
       LEAST(v_name <=> (SELECT v_name FROM packages WHERE package = 'vlc'),
             v_summary <=> (SELECT v_summary FROM packages WHERE package = 'vlc'),
             v_description <=> (SELECT v_description FROM packages WHERE package = 'vlc')) AS nearest_field
FROM packages
WHERE package NOT LIKE '%vlc%'
ORDER BY nearest_field
LIMIT 3;

SELECT package,
       GREATEST(v_name <=> (SELECT v_name FROM packages WHERE package = 'vlc'),
                v_summary <=> (SELECT v_summary FROM packages WHERE package = 'vlc'),
                v_description <=> (SELECT v_description FROM packages WHERE package = 'vlc')) AS farthest_field
FROM packages
WHERE package NOT LIKE '%vlc%'
ORDER BY farthest_field
LIMIT 3;

-- 5. A join: the eight packages nearest to mutt-wizard, with a note on the section of each.
CREATE TABLE sections (section TEXT PRIMARY KEY, note TEXT NOT NULL);

INSERT INTO sections VALUES
    ('mail', 'reading, sending and filtering mail'),
    ('net', 'servers, clients and tools of the network'),
    ('perl', 'modules for Perl'),
    ('utils', 'small tools of all kinds');

SELECT near.package, s.note, near.score
FROM (
    SELECT package, section,
           0.5 * (v_summary <=> (SELECT v_summary FROM packages WHERE package = 'mutt-wizard'))
         + 0.5 * (v_description <=> (SELECT v_description FROM packages WHERE package = 'mutt-wizard')) AS score
    FROM packages
    WHERE package <> 'mutt-wizard'
    ORDER BY score
    LIMIT 8
) AS near
JOIN sections s ON s.section = near.section
ORDER BY near.score;

-- 6. An aggregate over the nearest fifty: in which sections does one find things like postgresql-client?
SELECT section, count(*) AS packages, round(avg(distance), 3) AS mean_distance
FROM (
    SELECT section, v_description <=> (SELECT v_description FROM packages WHERE package = 'postgresql-client') AS distance
    FROM packages
    ORDER BY distance
    LIMIT 50
) AS nearest
GROUP BY section
ORDER BY packages DESC, section
LIMIT 5;

-- 7. Vectors aggregate too: the most typical editor is the one nearest to the mean of all editors.
SELECT package, summary
FROM packages
WHERE section = 'editors'
ORDER BY v_summary <=> (SELECT avg(v_summary) FROM packages WHERE section = 'editors')
LIMIT 3;

-- 8. How a statement is answered: the ranking of 2 as one operator that reads the vectors once.
EXPLAIN SELECT package FROM packages
WHERE section = 'video'
ORDER BY 0.5 * (v_summary <=> (SELECT v_summary FROM packages WHERE package = 'kdenlive'))
       + 0.5 * (v_description <=> (SELECT v_description FROM packages WHERE package = 'kdenlive'))
LIMIT 5;

DROP TABLE sections;
DROP TABLE packages;
