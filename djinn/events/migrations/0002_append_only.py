"""The log is append-only, for everybody: a trigger refuses every change of an event."""

from django.db import migrations

FORWARDS = """
CREATE FUNCTION events_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'event % of stream % is never changed', OLD.seq, OLD.stream_id USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER events_append_only BEFORE UPDATE ON events_event
    FOR EACH ROW EXECUTE FUNCTION events_refuse_change();
"""
BACKWARDS = "DROP TRIGGER events_append_only ON events_event; DROP FUNCTION events_refuse_change();"


class Migration(migrations.Migration):
    dependencies = [("events", "0001_initial")]
    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
