"""Wine: trained on a DataFrame, asked by column name, the columns in another order."""

from __future__ import annotations

import json

import joblib
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sample_models.build import Workspace
from sample_models.sample import JSON, Sample

NAME = "wine-frame"
COLUMNS = ["alcohol", "color_intensity", "flavanoids"]


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    wine = load_wine(as_frame=True)
    frame = wine.data[COLUMNS].copy()
    frame["strength"] = (frame["alcohol"] > 13).map({True: "strong", False: "light"})
    columns = make_column_transformer((StandardScaler(), COLUMNS), (OneHotEncoder(), ["strength"]))
    model = make_pipeline(columns, LogisticRegression())
    model.fit(frame, wine.target_names[wine.target])
    joblib.dump(model, model_dir / "model.joblib")
    request = frame.iloc[[10, 80, 150], ::-1]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="ColumnTransformer of numbers and text, asked by column name",
            content_type=JSON,
            accept=JSON,
            body=json.dumps(request.to_dict(orient="records")),
            expected=model.predict(request[frame.columns]).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )
