"""Keys of requests with what was asked under them, apart by who chooses them; indexes of what runs are listed by."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('runs', '0004_more_is_final'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='run',
            name='key_space',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=20),
        ),
        migrations.AddField(
            model_name='run',
            name='request_digest',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=64),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['pipeline', 'id'], name='run_of_pipeline'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['status', 'id'], name='run_of_status'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['created_by', 'id'], name='run_of_person'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(fields=['schedule', 'id'], name='run_of_schedule'),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(condition=models.Q(('ended_at', None), models.Q(('paused_at__isnull', False), ('cancel_requested_at__isnull', False), _connector='OR')), fields=['id'], name='run_held'),
        ),
        migrations.AddConstraint(
            model_name='run',
            constraint=models.UniqueConstraint(fields=('created_by', 'key_space', 'idempotency_key'), name='run_started_once_a_space'),
        ),
        migrations.RemoveConstraint(
            model_name='run',
            name='run_started_once',
        ),
    ]
