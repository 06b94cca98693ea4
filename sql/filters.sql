-- Rankings under filters: always the k nearest of the rows that pass. Run it from the root of the repository.

CREATE TABLE packages AS SELECT * FROM 'data/debian_4k.parquet';

-- The query of every statement here: what lies near git-gui in summary and description.
CREATE TABLE query AS SELECT v_summary, v_description FROM packages WHERE package = 'git-gui';

PREPARE near AS
SELECT package, section, installed_kib,
       round(0.5 * (v_summary <=> (SELECT v_summary FROM query)) + 0.5 * (v_description <=> (SELECT v_description FROM query)), 4) AS score
FROM packages
WHERE package <> 'git-gui' AND section = $1
ORDER BY 0.5 * (v_summary <=> (SELECT v_summary FROM query)) + 0.5 * (v_description <=> (SELECT v_description FROM query))
LIMIT $2;

-- One row in a hundred passes.
EXECUTE near('editors', 3);

-- Fewer rows than asked for, and none.
EXECUTE near('vcs', 50);
EXECUTE near('no such section', 3);

DEALLOCATE near;

-- Ranges, lists, missing values, arrays.
SELECT package, installed_kib FROM packages
WHERE installed_kib BETWEEN 1000 AND 10000 AND section IN ('vcs', 'devel', 'libs')
ORDER BY v_summary <=> (SELECT v_summary FROM query) LIMIT 3;

SELECT package FROM packages
WHERE homepage IS NULL AND array_has(tags, 'interface::commandline')
ORDER BY v_summary <=> (SELECT v_summary FROM query) LIMIT 3;

-- A distance is a filter as well: everything within a radius, and near in one field but not in another.
SELECT count(*) FROM packages WHERE v_summary <=> (SELECT v_summary FROM query) < 0.6;

SELECT package FROM packages
WHERE v_name <=> (SELECT v_name FROM packages WHERE package = 'git-gui') > 0.8
ORDER BY v_summary <=> (SELECT v_summary FROM query) LIMIT 3;

-- A filter that asks another table.
SELECT package, section FROM packages
WHERE section IN (SELECT section FROM packages GROUP BY section HAVING count(*) < 25)
ORDER BY v_description <=> (SELECT v_description FROM query) LIMIT 3;

-- The nearest package of every section, and of those the five nearest.
SELECT section, package, round(distance, 4) AS distance
FROM (
    SELECT section, package, v_summary <=> (SELECT v_summary FROM query) AS distance,
           row_number() OVER (PARTITION BY section ORDER BY v_summary <=> (SELECT v_summary FROM query)) AS place
    FROM packages
    WHERE package <> 'git-gui'
) AS ranked
WHERE place = 1
ORDER BY distance
LIMIT 5;

DROP TABLE query;
DROP TABLE packages;
