-- Layout 1 of the state in PostgreSQL. The relay makes it on first use.
CREATE TABLE iap.store (
	one     boolean PRIMARY KEY DEFAULT true CHECK (one), -- there is one row
	schema  integer NOT NULL,                             -- version of this layout
	version bigint  NOT NULL,                             -- the last version given
	trimmed bigint  NOT NULL                              -- changes up to this version may be missing from iap.changes
) WITH (fillfactor = 10);

CREATE TABLE iap.items (
	key     text COLLATE "C" PRIMARY KEY,
	value   bytea  NOT NULL,
	version bigint NOT NULL,
	expires bigint NOT NULL -- Unix nanoseconds, 0 never
);
CREATE INDEX items_expires ON iap.items (expires) WHERE expires > 0;

-- What watchers have yet to hear.
CREATE TABLE iap.changes (
	version bigint PRIMARY KEY,
	key     text COLLATE "C" NOT NULL,
	value   bytea   NOT NULL,
	expires bigint  NOT NULL,
	deleted boolean NOT NULL,
	at      timestamptz NOT NULL DEFAULT now()
);

-- What each write came to, so that one whose answer was lost can be asked for again.
CREATE TABLE iap.writes (
	batch  uuid PRIMARY KEY,
	result bigint[] NOT NULL,
	at     timestamptz NOT NULL DEFAULT now()
);

-- write does a batch of writes, in order. Its first statement takes the one row of iap.store and with it the turn of all
-- relays, so versions are given in the order of the commits; each later statement sees what the holders before committed.
-- It returns the version before the batch and then, for each write, its new version, 0 for a conflict, -1 for no such item.
-- Asked again with the number of a batch that is done, it answers what it answered and does nothing.
CREATE FUNCTION iap.write(
	this uuid, floor bigint, clock bigint, keys text[], expected bigint[], vals bytea[], ends bigint[], ops smallint[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	last   bigint;
	now_at bigint;
	answer bigint[];
	w      record;
BEGIN
	SELECT s.version INTO STRICT last FROM iap.store s FOR UPDATE;
	IF last < floor THEN
		RAISE EXCEPTION 'version %, but % was seen', last, floor USING ERRCODE = 'IAP01';
	END IF;
	SELECT d.result INTO answer FROM iap.writes d WHERE d.batch = this;
	IF FOUND THEN
		RETURN answer;
	END IF;
	answer := ARRAY[last];
	FOR w IN SELECT * FROM unnest(keys, expected, vals, ends, ops) WITH ORDINALITY AS u (key, version, value, expires, op, n) ORDER BY n LOOP
		SELECT i.version INTO now_at FROM iap.items i WHERE i.key = w.key AND (w.op = 2 OR i.expires = 0 OR i.expires > clock);
		now_at := COALESCE(now_at, 0);
		IF w.op = 1 AND now_at = 0 THEN
			answer := answer || -1::bigint;
			CONTINUE;
		END IF;
		IF now_at <> w.version AND NOT (w.op = 1 AND w.version = -1) THEN
			answer := answer || 0::bigint;
			CONTINUE;
		END IF;
		last := last + 1;
		IF w.op = 0 THEN
			INSERT INTO iap.items VALUES (w.key, w.value, last, w.expires)
				ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires;
		ELSE
			DELETE FROM iap.items i WHERE i.key = w.key;
		END IF;
		INSERT INTO iap.changes (version, key, value, expires, deleted) VALUES (last, w.key, w.value, w.expires, w.op <> 0);
		answer := answer || last;
	END LOOP;
	INSERT INTO iap.writes (batch, result) VALUES (this, answer);
	IF last > answer[1] THEN
		UPDATE iap.store SET version = last;
		PERFORM pg_notify('iap_state', last::text);
	END IF;
	RETURN answer;
END $$;

INSERT INTO iap.store (schema, version, trimmed) VALUES (1, 0, 0);
