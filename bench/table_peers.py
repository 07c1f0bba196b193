"""What `bench.tables` compares with: scikit-learn, LightGBM, XGBoost, CatBoost, pytabkit and TabICL, untuned.

Each is trained with its default settings, categories as each wants them. Only what is installed runs.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

Frame = Any
Labels = npt.NDArray[Any]
Peer = Callable[[Frame, Labels, Frame, bool, int], Labels]
"""Predictions for the test rows from (train, targets, test, whether it classifies, seed)."""


def split_of(frame: Frame, target: str, *, classifies: bool, seed: int, most_rows: int | None) -> tuple[Frame, Frame]:
    """The rows to train on and to test on: 80 and 20 %, of at most `most_rows`, which seed 0 draws."""
    from sklearn.model_selection import train_test_split

    if most_rows and len(frame) > most_rows:
        frame = frame.sample(most_rows, random_state=0)
    labels = frame[target]
    # A class of a single row cannot be in both parts.
    stratify = labels if classifies and labels.value_counts().min() > 1 else None
    train, test = train_test_split(frame, test_size=0.2, random_state=seed, stratify=stratify)
    return train, test


def _as_categories(train: Frame, test: Frame) -> tuple[Frame, Frame]:
    """Columns of words as pandas' categories, those of the training rows."""
    import pandas as pd

    train, test = train.copy(), test.copy()
    for name in train.columns:
        if not pd.api.types.is_numeric_dtype(train[name]) or train[name].dtype == bool:
            # pandas' own type of text is new, and not every peer reads it.
            train[name] = train[name].astype(object).map(str, na_action="ignore").astype(object).astype("category")
            words = test[name].astype(object).map(str, na_action="ignore")
            test[name] = pd.Categorical(words, categories=train[name].cat.categories)
    return train, test


def _words(frame: Frame) -> list[str]:
    return [name for name in frame.columns if frame[name].dtype.name == "category"]


def _catboost(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    from catboost import CatBoostClassifier, CatBoostRegressor

    words = _words(train)
    parts = [
        frame.assign(**{name: frame[name].astype(object).fillna("").astype(str) for name in words})
        for frame in (train, test)
    ]
    model = (CatBoostClassifier if classifies else CatBoostRegressor)(
        random_seed=seed, verbose=0, thread_count=1, allow_writing_files=False, cat_features=words
    )
    model.fit(parts[0], targets)
    return np.asarray(model.predict(parts[1])).reshape(len(test))


def _lightgbm(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    import lightgbm

    model = (lightgbm.LGBMClassifier if classifies else lightgbm.LGBMRegressor)(random_state=seed, verbose=-1, n_jobs=1)
    plain = {name: f"f{number}" for number, name in enumerate(train.columns)}
    model.fit(train.rename(columns=plain), targets)
    return np.asarray(model.predict(test.rename(columns=plain)))


def _xgboost(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    import xgboost

    model = (xgboost.XGBClassifier if classifies else xgboost.XGBRegressor)(
        random_state=seed, n_jobs=1, enable_categorical=True, tree_method="hist"
    )
    model.fit(train, targets)
    return np.asarray(model.predict(test))


def _hist_boosting(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    # At most 255 categories are taken; a column of more becomes numbers.
    parts = [
        frame.assign(**{name: frame[name].cat.codes for name in _words(frame) if len(frame[name].cat.categories) > 250})
        for frame in (train, test)
    ]
    model = (HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor)(random_state=seed)
    model.fit(parts[0], targets)
    return np.asarray(model.predict(parts[1]))


def _encoded(train: Frame, test: Frame, *, one_hot: bool) -> tuple[Any, Any]:
    """Numbers with their median for missing ones, scaled for a linear model; categories one-hot or as codes."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    words = _words(train)
    numbers = [name for name in train.columns if name not in words]
    codes = (
        OneHotEncoder(handle_unknown="ignore", min_frequency=2)
        if one_hot
        else OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    )
    scaled = [SimpleImputer(strategy="median"), *([StandardScaler()] if one_hot else [])]
    encoder = make_column_transformer((make_pipeline(*scaled), numbers), (codes, words))
    return encoder.fit_transform(train), encoder.transform(test)


def _random_forest(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    known, new = _encoded(train, test, one_hot=False)
    model = (RandomForestClassifier if classifies else RandomForestRegressor)(random_state=seed, n_jobs=1)
    return np.asarray(model.fit(known, targets).predict(new))


def _linear(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    from sklearn.linear_model import LogisticRegression, Ridge

    known, new = _encoded(train, test, one_hot=True)
    model = LogisticRegression(max_iter=1000) if classifies else Ridge()
    return np.asarray(model.fit(known, targets).predict(new))


def _realmlp(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    import pytabkit

    model = (pytabkit.RealMLP_TD_Classifier if classifies else pytabkit.RealMLP_TD_Regressor)(
        random_state=seed, n_threads=1, device="cpu"
    )
    return np.asarray(model.fit(train, targets).predict(test))


def _tabm(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    import pytabkit

    model = (pytabkit.TabM_D_Classifier if classifies else pytabkit.TabM_D_Regressor)(
        random_state=seed, n_threads=1, device="cpu"
    )
    return np.asarray(model.fit(train, targets).predict(test))


def _tabicl(train: Frame, targets: Labels, test: Frame, classifies: bool, seed: int) -> Labels:
    import tabicl

    model = (tabicl.TabICLClassifier if classifies else tabicl.TabICLRegressor)(random_state=seed, device="cpu")
    return np.asarray(model.fit(train, targets).predict(test))


_ALL: dict[str, tuple[Peer, str]] = {
    "catboost": (_catboost, "catboost"),
    "lightgbm": (_lightgbm, "lightgbm"),
    "xgboost": (_xgboost, "xgboost"),
    "hist_boosting": (_hist_boosting, "sklearn"),
    "random_forest": (_random_forest, "sklearn"),
    "linear": (_linear, "sklearn"),
    "realmlp (pytabkit)": (_realmlp, "pytabkit"),
    "tabm (pytabkit)": (_tabm, "pytabkit"),
    "tabicl": (_tabicl, "tabicl"),
}

PEERS = tuple(name for name, (_, package) in _ALL.items() if find_spec(package))
"""The names of those that are installed."""


def judge(peer: str, train: Frame, test: Frame, target: str, *, classifies: bool, seed: int) -> tuple[float, float]:
    """The accuracy or RMSE of a peer on the test rows, and the CPU seconds of training and predicting."""
    from sklearn.preprocessing import LabelEncoder

    features, new = _as_categories(train.drop(columns=target), test.drop(columns=target))
    truth = test[target].to_numpy()
    targets = train[target].to_numpy()
    if classifies:
        encoder = LabelEncoder().fit(np.concatenate([targets, truth]).astype(str))
        targets, truth = encoder.transform(targets.astype(str)), encoder.transform(truth.astype(str))
    else:
        targets, truth = targets.astype(float), truth.astype(float)
    before = time.process_time()
    predicted = _ALL[peer][0](features, targets, new, classifies, seed)
    seconds = time.process_time() - before
    if classifies:
        return float((predicted == truth).mean()), seconds
    return float(np.sqrt(np.mean((predicted - truth) ** 2))), seconds
