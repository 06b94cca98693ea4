-- Scores over several vectors: weights, extremes, missing values, several metrics. Small enough to check by hand.

CREATE TABLE products (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    price DOUBLE PRECISION,
    v_title VECTOR(2) NOT NULL,
    v_image HALFVEC(2),
    v_tags BITVEC(4)
);

INSERT INTO products VALUES
    (1, 'lamp',  20.0, '[0,0]', '[6,8]', '1100'),
    (2, 'desk', 150.0, '[3,4]', '[4,3]', '0110'),
    (3, 'chair', 80.0, '[8,6]', '[0,0]', '0011'),
    (4, 'shelf', 60.0, '[0,1]', '[2,0]', '1110'),
    (5, 'vase',  15.0, '[3,0]', NULL,    '0001');

-- A weighted sum. A product without an image has no score and comes last.
SELECT name, 0.75 * (v_title <-> '[0,0]') + 0.25 * (v_image <-> '[0,0]') AS score
FROM products ORDER BY score LIMIT 5;

-- A weighted average: divided by the sum of the weights.
SELECT name, (3 * (v_title <-> '[0,0]') + 2 * (v_image <-> '[0,0]')) / (3 + 2) AS score
FROM products ORDER BY score LIMIT 3;

-- The nearest field decides, the farthest field decides.
SELECT name, LEAST(v_title <-> '[0,0]', v_image <-> '[0,0]') AS score FROM products ORDER BY score LIMIT 3;
SELECT name, GREATEST(v_title <-> '[0,0]', v_image <-> '[0,0]') AS score FROM products ORDER BY score LIMIT 3;

-- What a missing vector counts as: a number of your choice, or nothing, with the weights shared among the fields that are there.
SELECT name, 0.5 * (v_title <-> '[0,0]') + 0.5 * coalesce(v_image <-> '[0,0]', 10) AS score
FROM products ORDER BY score LIMIT 5;

SELECT name,
       CASE WHEN v_image IS NULL THEN v_title <-> '[0,0]'
            ELSE 0.5 * (v_title <-> '[0,0]') + 0.5 * (v_image <-> '[0,0]') END AS score
FROM products ORDER BY score LIMIT 5;

-- Any expression: a geometric mean, a price in the score, a field chosen by the row, away from one image.
SELECT name, sqrt((v_title <-> '[0,0]') * (v_image <-> '[0,0]')) AS score FROM products ORDER BY score LIMIT 3;
SELECT name, (v_title <-> '[0,0]') + price / 100 AS score FROM products ORDER BY score LIMIT 3;
SELECT name, (v_title <-> '[0,0]') - 0.5 * (v_image <-> '[6,8]') AS score FROM products ORDER BY score LIMIT 3;

-- Every field under its own metric: cosine, L2 and Hamming in one score.
SELECT name, round((v_title <=> '[1,0]') + (v_image <-> '[0,0]') / 10 + (v_tags <~> '1110') / 4, 4) AS score
FROM products WHERE id <> 1
ORDER BY (v_title <=> '[1,0]') + (v_image <-> '[0,0]') / 10 + (v_tags <~> '1110') / 4
LIMIT 3;

-- Similarities are larger for what is nearer: order them descending. NULL is last all the same.
SELECT name, 0.5 / (1 + (v_title <-> '[0,0]')) + 0.5 / (1 + (v_image <-> '[0,0]')) AS similarity
FROM products ORDER BY similarity DESC LIMIT 5;

DROP TABLE products;
