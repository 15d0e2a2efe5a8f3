"""A run and a step run that have ended stay as they are: refused by the database, not only by Python."""

from django.db import migrations

FORWARDS = """
CREATE FUNCTION runs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('succeeded', 'failed', 'cancelled') AND
       (NEW.status, NEW.reason, NEW.ended_at) IS DISTINCT FROM (OLD.status, OLD.reason, OLD.ended_at) THEN
        RAISE EXCEPTION '% % has ended as %', TG_TABLE_NAME, OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_run_guard BEFORE UPDATE ON runs_run FOR EACH ROW EXECUTE FUNCTION runs_guard();
CREATE TRIGGER runs_steprun_guard BEFORE UPDATE ON runs_steprun FOR EACH ROW EXECUTE FUNCTION runs_guard();
"""
BACKWARDS = """
DROP TRIGGER runs_steprun_guard ON runs_steprun;
DROP TRIGGER runs_run_guard ON runs_run;
DROP FUNCTION runs_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0001_initial")]
    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
