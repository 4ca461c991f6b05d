"""Views, as `samcls.views` has them, under the name by which stage one knows them."""

from samcls.views import VIEW_SETS, transform, view_names

__all__ = ["VIEW_SETS", "transform", "view_names"]
