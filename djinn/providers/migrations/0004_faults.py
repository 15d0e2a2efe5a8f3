from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("providers", "0003_exhausted_budgets")]

    operations = [
        migrations.AddField(
            model_name="modelcall",
            name="fault",
            field=models.CharField(blank=True, db_default="", max_length=20),
        ),
    ]
